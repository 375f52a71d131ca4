import dataclasses

import numpy as np
import pytest

from finetune.runs import trust
from tests import toy_run

FITTED = trust.Trust(3, 'training pictures, out of fold', 27, 25, 1.5, np.eye(3, 16, dtype=np.float32), 0.0,
                     np.linspace(0.1, 0.9, 27, dtype=np.float32))


@pytest.fixture
def run(tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=3)
    return run


def test_what_was_fitted_comes_back_as_it_was(run):
    trust.write(run.directory, FITTED)
    found = run.load().trust
    for field in dataclasses.fields(FITTED):
        value, expected = getattr(found, field.name), getattr(FITTED, field.name)
        assert type(value) is type(expected)
        np.testing.assert_array_equal(value, expected)


def test_it_holds_for_its_checkpoint_alone(run):
    """Another step, or the weights without their averages, have other features."""
    trust.write(run.directory, FITTED)
    toy_run.save_checkpoint(run, step=4)
    assert run.load(3).trust and not run.load(4).trust and not run.load(3, averages=False).trust


def test_a_run_of_old_has_none(run):
    assert run.load().trust is None


@pytest.mark.parametrize('damage', [
    lambda data: b'', lambda data: data[:200], lambda data: data[:-300], lambda data: b'PK' + data[:50],
    lambda data: data.replace(b'NUMPY', b'NOMPY')])
def test_a_damaged_file_is_told_and_costs_no_answer(run, capsys, damage):
    trust.write(run.directory, FITTED)
    path = run.directory / trust.FILE
    path.write_bytes(damage(path.read_bytes()))
    assert run.load().trust is None
    assert 'trust.npz cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('change', [{'temperature': 0.0}, {'temperature': float('nan')}, {'scores': np.zeros((2, 2))},
                                    {'class_means': np.full((1, 16), np.nan)}])
def test_values_that_make_no_sense_are_told_too(run, capsys, change):
    trust.write(run.directory, dataclasses.replace(FITTED, **change))
    assert run.load().trust is None
    assert 'make no sense' in capsys.readouterr().err
