import numpy as np

from finetune.checking import label_errors, neighbours
from tests.checking import albums

CLASSES, EACH, CHANNELS = 4, 60, 24


def drawn(seed: int = 0, spread: float = 0.6):
    """(rows of length 1, labels) of four classes around four centres."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(1, CLASSES + 1), EACH)
    centres = random.normal(size=(CLASSES + 1, CHANNELS))
    return neighbours.unit_rows(centres[labels] + spread * random.normal(size=(len(labels), CHANNELS))), labels


def flipped(labels: np.ndarray, count: int = 12):
    wrong = np.random.default_rng(1).choice(len(labels), count, replace=False)
    changed = labels.copy()
    changed[wrong] = changed[wrong] % CLASSES + 1
    return changed, wrong


def judged(rows, labels):
    near = neighbours.by_cosine(rows, label_errors.NEIGHBOURS)
    ridge = label_errors.Ridge(rows)
    return ridge, near, label_errors.margins(ridge, *near, labels)


def test_what_is_said_of_a_picture_is_said_without_it():
    """Closed form against fitting again without each of a few pictures."""
    rows, labels = drawn(spread=1.5)
    ridge = label_errors.Ridge(rows)
    said = ridge.without_each(labels - 1, CLASSES)
    targets = np.where(np.arange(CLASSES) == (labels - 1)[:, None], 1.0, -1.0)
    centred = rows - rows.mean(axis=0)
    penalty = label_errors.RIDGE * np.trace(centred.T @ centred) / CHANNELS * np.eye(CHANNELS)
    for left_out in (0, 17, 200):
        rest = np.arange(len(rows)) != left_out
        x, y = rows[rest] - rows[rest].mean(axis=0), targets[rest]
        weights = np.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean(axis=0)))
        expected = (rows[left_out] - rows[rest].mean(axis=0)) @ weights + y.mean(axis=0)
        np.testing.assert_allclose(said[left_out], expected, atol=2e-3)


def test_wrong_labels_are_called_and_right_ones_are_not():
    rows, labels = drawn()
    changed, wrong = flipped(labels)
    _, _, margins = judged(rows, changed)
    called = np.flatnonzero(margins.called)
    assert set(called) <= set(wrong) and len(called) > 0.7 * len(wrong)
    assert (margins.better[called] == labels[called]).all()
    assert judged(rows, labels)[2].called.sum() == 0


def test_the_estimate_is_near_the_truth():
    rows, labels = drawn()
    changed, wrong = flipped(labels)
    ridge, near, margins = judged(rows, changed)
    among_called, in_all = label_errors.estimate(ridge, *near, changed, margins, seed=0)
    assert among_called <= margins.called.sum() and 0.6 * len(wrong) < in_all < 1.4 * len(wrong)


def test_noise_has_no_wrong_labels():
    """Where nothing can be told apart, every picture is nearest to some other class, and none of that is an error."""
    random = np.random.default_rng(0)
    rows = neighbours.unit_rows(random.normal(size=(240, CHANNELS)))
    assert judged(rows, np.repeat(np.arange(1, 5), 60))[2].called.mean() < 0.02


def test_equal_pictures_and_channels_without_a_value_are_no_division_by_zero():
    rows = np.zeros((8, CHANNELS), np.float32)
    rows[:, 0] = 1
    _, _, margins = judged(rows, np.array([1, 2] * 4))
    assert np.isfinite(margins.ridge).all() and np.isfinite(margins.neighbours).all()


def test_a_finding_names_both_classes():
    pictures = [albums.saved(albums.photo(number, (16, 16))) for number in range(4)]
    album = albums.of(pictures, labels=[1, 1, 2, 2])
    margins = label_errors.Margins(np.array([-2.0, 1, 1, 1]), np.array([-1.0, 1, 1, 1]), np.array([2, 2, 1, 1]), 0.9)
    finding, = label_errors.findings(album, np.arange(4), margins)
    assert finding.places == (0,) and 'class_2, not class_1' in finding.suggestion and finding.score == 1.0
