import numpy as np

from finetune.checking import balance, learning_curve
from finetune.checking.learning_curve import Point


def points(law, sizes=(400, 800, 1600, 3200)):
    return [Point(size, law(size), 3200 // size) for size in sizes]


def test_a_law_with_a_floor_is_not_taken_for_one_without():
    """A power law would promise that the error goes on falling."""
    said, low, high = learning_curve.predict(points(lambda size: 0.1 + 5 * size ** -0.8), 6400, seed=1)
    assert low < 0.1 + 5 * 6400 ** -0.8 < high and high - low < 0.05 and said > 0.09


def test_of_laws_with_an_exponent_the_one_that_fits_best_is_taken_and_never_a_negative_one():
    sizes, deviation = np.array([400.0, 800, 1600, 3200]), np.array([0.01, 0.008, 0.006, 0.004])
    drawn = np.random.default_rng(0).normal(0.15, 0.08, (60, 4))  # Rising ones too, and some that are mostly below 0.
    found = learning_curve._fits(sizes, drawn, deviation, 0.5)
    grid = np.stack(np.meshgrid(np.linspace(0, 0.4, 201), np.linspace(0, 10, 201)), axis=-1).reshape(-1, 2)
    for errors, (floor, scale, misfit) in zip(drawn, found, strict=True):
        misfits = np.square((grid[:, :1] + grid[:, 1:] * sizes ** -0.5 - errors) / deviation).sum(axis=1)
        assert floor >= 0 and scale >= 0 and misfit <= misfits.min() + 1e-9
        np.testing.assert_allclose(
            misfit, np.square((floor + scale * sizes ** -0.5 - errors) / deviation).sum(), rtol=1e-9)


def test_a_power_law_is_followed():
    _, low, high = learning_curve.predict(points(lambda size: 2 * size ** -0.4), 6400, seed=1)
    assert low < 2 * 6400 ** -0.4 < high


def test_a_head_that_makes_no_mistake_is_no_division_by_zero():
    said, low, high = learning_curve.predict(points(lambda size: 0.0), 6400, seed=1)
    assert 0 <= low <= said <= high < 0.02


def test_parts_have_their_share_of_every_class_and_the_neediest_class_is_named():
    labels, asked = np.repeat([1, 2, 3], [160, 80, 80]), []

    def answers_of(part):
        asked.append(part)
        answers = labels[part].copy()
        hard = np.flatnonzero(answers == 3)
        answers[hard[::2]] = 1
        return answers

    curve = learning_curve.draw(answers_of, labels, seed=0)
    assert [len(part) for part in asked] == [40] * 4 + [80] * 2 + [160] + [320]
    assert all((np.bincount(labels[part])[1:] * 320 == len(part) * np.array([160, 80, 80])).all() for part in asked)
    assert curve.neediest == (3,) and 'needed most in tulip' in learning_curve.sentence(curve, ['', '', '', 'tulip'])
    assert learning_curve.sentence(curve, ['', '', '', 'tulip']).count('80 % interval') == 1


def test_of_very_many_pictures_some_are_enough():
    labels, sizes = np.repeat([1, 2], 20_000), []

    def answers_of(part):
        sizes.append(len(part))
        return labels[part]

    learning_curve.draw(answers_of, labels, seed=0)
    assert max(sizes) == learning_curve.MOST


def test_too_few_pictures_are_told_so():
    assert learning_curve.draw(lambda part: part, np.ones(20, int), seed=0) is None
    assert 'too few' in learning_curve.sentence(None, [])


def test_small_classes_are_named_with_what_would_be_enough():
    counts = np.array([0, 1000, 100, 900]), np.array([0, 200, 3, 180])
    found = list(balance.findings(('background', 'rose', 'thistle', 'tulip'), *counts))
    assert [(finding.kind, finding.label) for finding in found] == [
        ('imbalance', 'thistle'), ('small_class', 'thistle')]
    assert '3 pictures to measure by' in found[1].suggestion


def test_classes_of_one_size_are_balanced():
    assert list(balance.findings(('background', 'a', 'b'), np.array([0, 50, 60]), np.array([0, 20, 25]))) == []
