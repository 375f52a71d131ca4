"""What a training leaves behind so that its answers can be trusted, from the command line on."""

import numpy as np
import pytest

from finetune import train
from finetune.features import regression
from finetune.runs.run import Run
from finetune.training import loop
from tests import toy_records

HEAD = ('--model=toy', '--image_size=16', '--freeze_backbone')
STEPS = ('--model=toy', '--image_size=16', '--epochs=2', '--batch_size=8', '--moving_average_decay=0')


def trained(tmp_path, *flags, validation: int = 12, name: str = 'run') -> Run:
    data = tmp_path / 'records'
    if not data.exists():
        toy_records.write(data, train=30, validation=validation)
    assert train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/{name}', *flags]) == 0
    return Run(tmp_path / name)


def test_a_solved_head_is_fitted_out_of_fold_to_its_training_pictures(tmp_path, capsys):
    found = trained(tmp_path, *HEAD).load().trust
    assert (found.pictures, found.fitted_on) == (30, 'training pictures, out of fold')
    assert found.class_means.shape == (3, 16) and len(found.scores) == 30 and found.energy_weight == 0
    np.testing.assert_allclose(np.linalg.norm(found.class_means, axis=1), 1, rtol=1e-5)
    assert 'Temperature' in capsys.readouterr().err


def test_of_so_many_that_every_fold_takes_long_one_fold_is_asked_and_the_time_is_foretold(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regression, 'SEARCHED', 60)  # Twenty of thirty pictures.
    monkeypatch.setattr(loop, 'WORTH_SAYING', 0)
    found = trained(tmp_path, *HEAD).load().trust
    assert found.pictures == 6 and len(found.scores) == 30
    assert capsys.readouterr().err.count('The head takes about') == 1


def test_a_head_without_validation_pictures_is_fitted_too(tmp_path):
    assert trained(tmp_path, *HEAD, validation=0).load().trust.pictures == 30


@pytest.mark.parametrize('flags', [
    (), ('--trainable_from=last_conv',), pytest.param(('--freeze_backbone',), marks=pytest.mark.slow),
    pytest.param(('--num_gpus=2',), marks=pytest.mark.slow)])
def test_what_trains_by_steps_is_fitted_to_its_validation_pictures(tmp_path, flags):
    """Of its best checkpoint, which `predict` takes, whichever came last."""
    run = trained(tmp_path, *STEPS, *flags)
    found = run.load('best').trust
    assert (found.step, found.pictures, found.fitted_on) == (run.best_step, 12, 'validation pictures')
    assert found.class_means.shape == (3, 16) and found.energy_weight > 0


def test_where_no_best_checkpoint_is_kept_the_last_one_answers_and_is_fitted(tmp_path):
    run = trained(tmp_path, *STEPS, '--nokeep_best', '--epochs=3')
    assert run.best_step is None
    assert run.load('best').step == run.steps()[-1] == run.load('best').trust.step


@pytest.mark.slow
def test_it_is_fitted_once_and_again_to_a_better_checkpoint(tmp_path):
    run = trained(tmp_path, *STEPS)
    before = (run.directory / 'trust.npz').stat().st_mtime_ns
    trained(tmp_path, *STEPS)
    assert (run.directory / 'trust.npz').stat().st_mtime_ns == before
    (run.directory / 'trust.npz').unlink()  # A kill came before it.
    trained(tmp_path, *STEPS)
    assert run.load('best').trust


def test_without_validation_pictures_steps_have_none(tmp_path):
    assert trained(tmp_path, *STEPS, validation=0).load().trust is None


def test_pictures_of_a_class_that_no_validation_picture_has_are_not_called_unknown(tmp_path, capsys):
    found = trained(tmp_path, *STEPS, validation=2).load('best').trust
    assert not len(found.class_means) and found.temperature > 0
    assert 'never say `unknown`' in capsys.readouterr().err
