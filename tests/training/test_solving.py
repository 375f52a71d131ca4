"""`--optimizer=regression`: a head that is solved for at once, from the command line on."""

import csv

import numpy as np
import pytest

from finetune import eval, train
from finetune.evaluation import inference
from finetune.features import regression
from finetune.models import classifier, engines
from finetune.records import batches, dataset
from finetune.runs.run import Run
from finetune.training import train as training
from tests import toy_records
from tests.test_train import assert_equal_variables, variables

pytestmark = pytest.mark.kernels


@pytest.fixture
def data(tmp_path):
    return dataset.open_records(toy_records.write(tmp_path / 'records', train=21, validation=7))


def solve_toy(data, directory, *flags) -> int:
    return train.main([f'--data_dir={data.directory}', f'--train_dir={directory}', '--model=toy', '--image_size=16',
                       '--freeze_backbone', *flags])


@pytest.mark.parametrize('flags', [
    (), pytest.param(('--num_gpus=2', '--views=2', '--label_smoothing=0.1'), marks=pytest.mark.slow)])
def test_the_head_that_is_solved_for_knows_the_pictures(data, tmp_path, capfd, flags):
    assert solve_toy(data, tmp_path / 'run', *flags) == 0
    out = capfd.readouterr()
    assert 'softmax regression' in out.err and 'held-out loss' in out.out
    row, = csv.DictReader((tmp_path / 'run/metrics.csv').open())
    assert float(row['validation_precision_at_1']) == 1.0  # Their colour says it.
    model = Run(tmp_path / 'run').load('last').model
    found = inference.outputs(engines.function(model), batches.for_evaluation(data, 'validation', 16, 0.875, 4))
    np.testing.assert_array_equal(found.logits.argmax(axis=1), found.labels)
    assert (found.logits[:, 0] <= classifier.NEVER).all()  # No training picture is background.


@pytest.mark.slow
def test_the_head_is_solved_for_on_all_views_with_what_was_asked_for(
        data, tmp_path, monkeypatch):
    fit, asked = regression.fit, []

    def noted(features, labels, classes, seed, *, label_smoothing, class_weights, tell):
        asked.append((features.shape[:2], seed, label_smoothing, class_weights))
        return fit(features, labels, classes, seed, label_smoothing=label_smoothing, class_weights=class_weights,
                   tell=tell)

    monkeypatch.setattr(regression, 'fit', noted)
    flags = '--views=2', '--seed=5', '--label_smoothing=0.1', '--class_weights=balanced'
    assert solve_toy(data, tmp_path / 'run', *flags) == 0
    assert asked == [((21, 2), 5, 0.1, [0.0, 1.0, 1.0, 1.0])]


def test_a_head_that_is_solved_for_needs_no_second_time(data, tmp_path, capfd):
    solve_toy(data, tmp_path / 'run')
    before = variables(tmp_path / 'run')
    capfd.readouterr()
    assert solve_toy(data, tmp_path / 'run') == 0
    assert 'held-out loss' not in capfd.readouterr().out
    assert_equal_variables(before, variables(tmp_path / 'run'), rtol=0, atol=0)
    assert solve_toy(data, tmp_path / 'run', '--epochs=3') == 2
    assert 'solved at once' in capfd.readouterr().err


@pytest.mark.slow
def test_a_solved_head_does_not_pretend_to_know_other_records(data, tmp_path, capfd):
    solve_toy(data, tmp_path / 'run')
    before = (tmp_path / 'run/recipe.json').read_bytes()
    other = dataset.open_records(toy_records.write(tmp_path / 'other', train=21, seed=7))
    assert solve_toy(other, tmp_path / 'run', '--override') == 1
    assert 'solved on other records' in capfd.readouterr().err
    assert (tmp_path / 'run/recipe.json').read_bytes() == before


def test_too_many_features_to_solve_at_once_are_named_with_the_way_out(data, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(regression, 'MOST_BYTES', 100)
    assert solve_toy(data, tmp_path / 'run') == 1
    assert 'add --epochs=10' in capfd.readouterr().err
    assert solve_toy(data, tmp_path / 'run', '--epochs=1') == 0


@pytest.mark.slow
def test_a_head_on_several_layers_is_the_same_in_every_command(data, tmp_path, capfd):
    assert solve_toy(data, tmp_path / 'run', '--feature_layers=first_bn,last_conv') == 0
    assert eval.main([f'--checkpoint_dir={tmp_path}/run', f'--data_dir={data.directory}', '--run_once']) == 0
    assert 'precision @ 1 = 1.0000' in capfd.readouterr().out
    again = ('--fine_tune', f'--pretrained={tmp_path}/run')
    assert solve_toy(data, tmp_path / 'again', *again) == 0
    assert Run(tmp_path / 'again').recipe.feature_layers == 'first_bn,last_conv'


def test_an_interrupted_solution_leaves_nothing_that_looks_like_one(data, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(regression, 'fit', interrupted)
        assert solve_toy(data, tmp_path / 'run') == 130
    assert Run(tmp_path / 'run').steps() == []
    assert solve_toy(data, tmp_path / 'run') == 0


@pytest.mark.slow
def test_towers_that_no_batch_divides_do_not_stop_a_head_that_needs_no_batches(data, tmp_path, monkeypatch):
    """All GPUs are towers by default; three of them do not divide the 32 that --batch_size would be."""
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(training, '_check_towers', refuse)
    assert solve_toy(data, tmp_path / 'run') == 0


def test_without_validation_pictures_the_head_is_saved_all_the_same(tmp_path):
    data = dataset.open_records(toy_records.write(tmp_path / 'records', train=21, validation=0))
    assert solve_toy(data, tmp_path / 'run') == 0
    assert Run(tmp_path / 'run').steps() == [1]
