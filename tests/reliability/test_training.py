"""Killed, stopped, out of disk, damaged: a training goes on to the same numbers, or says why not: R11 to R13, R15.

Divergence (R15), signals and one resume to the last bit are in tests/test_going_on.py.
"""

import pytest

from tests import toy_run
from tools.torture import checkpoints, failures, trainings

pytestmark = pytest.mark.kernels


@pytest.mark.slow
def test_a_training_killed_at_any_moment_goes_on_from_its_newest_checkpoint(tmp_path):
    assert not failures(trainings.killed(tmp_path, seed=0, count=2), at_least=2)


@pytest.mark.slow
def test_the_state_of_any_step_leads_to_the_same_bits(tmp_path):
    assert not failures(trainings.resumed_from_every_step(tmp_path, seed=4, count=3), at_least=3)


@pytest.mark.slow
def test_a_disk_that_is_full_while_saving_does_not_end_the_training_but_the_last_save_counts(tmp_path):
    assert not failures(trainings.disk_full(tmp_path, seed=0, count=1), at_least=3)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(tmp_path):
    assert not failures(checkpoints.damaged(tmp_path, seed=0, count=12), at_least=12)


def test_a_flipped_bit_in_the_weights_that_ship_with_the_project_is_noticed(tmp_path):
    assert not failures(checkpoints.weights_damaged(tmp_path, seed=0, count=20), at_least=20)


def test_the_best_checkpoint_is_whole_or_absent_where_a_copy_stands_in_for_a_link(tmp_path, monkeypatch):
    """On a file system without hard links, a kill or a full disk comes in the middle of a copy."""
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=3)

    def no_links(*_):
        raise PermissionError

    def half(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.link', no_links)
    with monkeypatch.context() as killed:
        killed.setattr('finetune.runs.run.write_atomically', half)
        with pytest.raises(KeyboardInterrupt):
            run.keep_as_best(3)
    assert not list(run.directory.glob('best-*'))
    run.keep_as_best(3)
    assert run.load('best').step == 3
