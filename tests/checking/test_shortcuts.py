import numpy as np
import pytest

from finetune.checking import album, shortcuts

COUNT = 600


def glimpses(random) -> np.ndarray:
    drawn = np.zeros(COUNT, album.GLIMPSE)
    drawn['height'], drawn['width'] = random.integers(200, 260, (2, COUNT))
    drawn['bytes'] = random.integers(20_000, 60_000, COUNT)
    drawn['jpeg_quality'] = random.choice([80, 90, 95], COUNT)
    return drawn


def found(change, head_accuracy: float = 0.9):
    random = np.random.default_rng(0)
    labels, drawn = random.integers(1, 4, COUNT), glimpses(random)
    change(drawn, labels, random)
    return shortcuts.find(drawn, labels, head_accuracy, seed=1)


def test_files_that_say_nothing_give_no_warning():
    honest = found(lambda drawn, labels, random: None)
    assert abs(honest.explained) < 0.15 and shortcuts.finding(honest, shrunk=False) == []


def test_a_class_saved_at_another_quality_is_found_and_named():
    def save_otherwise(drawn, labels, random):
        drawn['jpeg_quality'][(labels == 2) & (random.random(COUNT) < 0.8)] = 60

    shortcut = found(save_otherwise)
    finding, = shortcuts.finding(shortcut, shrunk=False)
    assert shortcut.telling[0] == 'format and quality' and 'format and quality' in finding.suggestion


@pytest.mark.slow
def test_a_shape_that_only_two_properties_tell_together_is_found():
    """Upright against lying: neither height nor width alone says it."""
    def turn(drawn, labels, random):
        drawn['width'] = np.where(labels == 1, drawn['height'] - 20, drawn['height'] + 20)

    assert found(turn).explained > shortcuts.WARN


def test_what_could_not_be_seen_is_said():
    shortcut = shortcuts.Shortcut(0.8, 0.3, 0.9, 0.02, ('size',))
    assert 'camera, date' in shortcuts.finding(shortcut, shrunk=False)[0].suggestion
    assert 'before the build shrank' in shortcuts.finding(shortcut, shrunk=True)[0].suggestion


def test_a_handful_of_pictures_says_nothing():
    assert shortcuts.find(np.zeros(6, album.GLIMPSE), np.array([1, 2] * 3), 0.9, seed=1) is None


@pytest.mark.slow
def test_luck_with_a_few_pictures_is_no_shortcut():
    random = np.random.default_rng(0)
    for seed in range(10):
        few, labels = glimpses(random)[:40], random.integers(1, 3, 40)
        assert shortcuts.finding(shortcuts.find(few, labels, 0.5, seed), shrunk=False) == []
