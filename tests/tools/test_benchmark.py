import json

import numpy as np
import pytest

from tests import toy
from tools.benchmark import __main__ as benchmark
from tools.benchmark import checking, commands, place, trust, turns
from tools.benchmark.place import Place


def test_a_ratio_is_that_of_turns_side_by_side_and_the_first_turn_does_not_count():
    """A machine that gets slower must not favour the side that is measured first."""
    ours, theirs = iter([1000.0, 40.0, 20.0]), iter([1.0, 20.0, 10.0])
    found = turns.in_turn(lambda: next(ours), lambda: next(theirs), turns=2)
    assert found['ratio'] == {'mean': 2.0, 'std': 0.0} and found['ours']['mean'] == 30.0 and found['n'] == 2


def test_the_spread_is_that_of_a_sample():
    assert turns.spread(np.array([1.0, 3.0])) == {'mean': 2.0, 'std': 1.4142}
    assert turns.spread(np.array([5.0]))['std'] == 0.0


def test_other_photos_are_other_records(tmp_path):
    """Else the figures of the photos before would pass for those of the ones that were named."""
    first, second = (toy.class_folders(tmp_path / name, {'cat': 4, 'dog': 4}, first=first)
                     for name, first in (('first', 0), ('second', 9)))
    assert place._listed(first) == place._listed(first) != place._listed(second)


def test_a_row_holds_every_figure_that_was_measured():
    measured = {'benchmark': 'eval', 'what': 'eval', 'unit': 'pictures/s', 'ours': {'mean': 96.35, 'std': 0.04},
                'theirs': [1.5, 2], 'ratio': {'time': 4.05}, 'n': 3, 'goal': 1.2}
    row = benchmark.table([json.dumps(measured)]).splitlines()[-1]
    assert row == '| eval | eval | pictures/s | 96.35 ± 0.04 | 1.5; 2 | time 4.05 | 3 | 1.2 |'


@pytest.mark.slow
def test_a_check_of_features_drawn_at_random_runs(monkeypatch):
    monkeypatch.setattr(checking, 'DRAWN', 300)
    seconds, megabytes = checking._very_many()['ours']
    assert seconds >= 0 and megabytes > 0


@pytest.mark.slow
def test_both_sides_of_the_build_see_every_picture(tmp_path):
    pictures = toy.class_folders(tmp_path / 'photos', {'cat': 6, 'dog': 6})
    place = Place(tmp_path, tmp_path, tmp_path, tmp_path)
    assert commands._pictures_built(pictures, place)() > 0 and commands._pictures_looped('hash', pictures)() > 0
    manifest = json.loads((tmp_path / 'built/dataset.json').read_text())
    assert sum(split['records'] for split in manifest['splits'].values()) == 12


@pytest.mark.slow
def test_what_is_said_of_a_head_is_measured_on_pictures_it_has_not_seen():
    random = np.random.default_rng(0)
    labels = 1 + np.arange(700) % 3
    features = (3 * random.normal(size=(4, 32))[labels] + random.normal(size=(700, 32))).astype(np.float16)
    strange = {'noise': random.normal(size=(100, 32)).astype(np.float16)}
    rows = {row['what'].partition(';')[0]: row for row in trust._by_size(features, labels, 4, strange, 200, draws=2)}
    found = rows['precision@1: out of fold, against unseen']
    assert found['ours']['mean'] == pytest.approx(found['theirs']['mean'], abs=0.05)
    assert rows['noise let in']['ours']['mean'] < 0.3 and 0.88 < rows['kept of 95%']['ours']['mean'] <= 1
