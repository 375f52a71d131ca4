"""What a run leaves on the disk, and how the same command goes on from there."""

import contextlib
import csv
import errno
import fcntl
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune import train
from finetune.console import locks, machine, streams
from finetune.models import zoo
from finetune.models.averages import Averages
from finetune.runs import recipe as recipes
from finetune.runs.run import KEPT, Run, lock
from finetune.runs.state import State, build_model
from finetune.training import journal, validation
from tests import toy_net, toy_records
from tests.test_train import assert_equal_variables, train_toy, variables

pytestmark = pytest.mark.kernels


@pytest.fixture
def data(tmp_path):
    return toy_records.write(tmp_path / 'records')


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(data, tmp_path):
    flags = ('--dropout=0.5', '--distortion=inception', '--optimizer=rmsprop', '--aux_weight=0.4')
    assert train_toy(data, tmp_path / 'whole', '--max_steps=6', *flags) == 0
    assert train_toy(data, tmp_path / 'parts', '--max_steps=3', *flags) == 0
    assert train_toy(data, tmp_path / 'parts', '--max_steps=6', *flags) == 0
    assert_equal_variables(variables(tmp_path / 'whole'), variables(tmp_path / 'parts'), rtol=0, atol=0)


@pytest.mark.slow
def test_going_on_with_other_kernels_is_allowed_said_and_remembered(data, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(machine, 'kernels', lambda: 'other')
        assert train_toy(data, tmp_path / 'run', '--max_steps=1') == 0
        assert 'trained with' not in capfd.readouterr().err
    assert train_toy(data, tmp_path / 'run', '--max_steps=2') == 0
    assert f'trained with other kernels and goes on with {machine.kernels()}' in capfd.readouterr().err
    assert Run(tmp_path / 'run').kernels == machine.kernels()
    assert train_toy(data, tmp_path / 'run', '--max_steps=3') == 0
    assert 'trained with' not in capfd.readouterr().err


@pytest.mark.slow
def test_a_run_of_old_which_does_not_know_its_kernels_goes_on(data, tmp_path, capfd):
    assert train_toy(data, tmp_path / 'run', '--max_steps=1') == 0
    facts = json.loads((tmp_path / 'run/recipe.json').read_text())
    del facts['kernels']
    (tmp_path / 'run/recipe.json').write_text(json.dumps(facts))
    assert train_toy(data, tmp_path / 'run', '--max_steps=2') == 0
    assert 'trained with' not in capfd.readouterr().err


@pytest.mark.slow
def test_divergence_stops_the_run_with_its_own_exit_code_and_leaves_a_finite_checkpoint(data, tmp_path, capfd):
    assert train_toy(data, tmp_path / 'run', '--max_steps=3') == 0
    assert train_toy(
        data, tmp_path / 'nan', '--max_steps=40', '--initial_learning_rate=1e30', '--log_every_steps=1') == 3
    assert 'lower --initial_learning_rate' in capfd.readouterr().err
    for step in Run(tmp_path / 'nan').steps():
        assert all(np.isfinite(v).all() for v in Run(tmp_path / 'nan').load(step, averages=False).model.get_weights())


@pytest.mark.parametrize(('number', 'exit_code'), [
    (signal.SIGINT, 130), *(pytest.param(number, 128 + number, marks=pytest.mark.slow)
                            for number in (signal.SIGTERM, signal.SIGHUP))])
def test_a_signal_saves_and_the_same_command_goes_on(data, tmp_path, monkeypatch, number, exit_code):
    whole = tmp_path / 'whole'
    train_toy(data, whole, '--max_steps=5')
    steps_done = journal.Journal.steps_done

    def interrupted(self, step, steps, loss):
        steps_done(self, step, steps, loss)
        if step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(journal.Journal, 'steps_done', interrupted)
    assert train_toy(data, tmp_path / 'run', '--max_steps=5') == exit_code
    assert Run(tmp_path / 'run').steps() == [2]
    monkeypatch.undo()
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
    assert train_toy(data, tmp_path / 'run', '--max_steps=5') == 0
    assert_equal_variables(variables(whole), variables(tmp_path / 'run'), rtol=0, atol=0)


@pytest.fixture
def no_reader():
    """A standard output that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, 'w') as stream:
        yield stream


@pytest.fixture
def full_disk():
    with Path('/dev/full').open('w') as stream:
        yield stream


STEPS = ('--max_steps=5', '--log_every_steps=1')
SOLVED = ('--freeze_backbone',)


@pytest.mark.parametrize(('flags', 'step'), [(STEPS, 1), (SOLVED, 1)])
def test_a_training_whose_reader_has_seen_enough_saves_and_stops(data, tmp_path, monkeypatch, no_reader, flags, step):
    """`finetune train | head -1`"""
    monkeypatch.setattr(sys, 'stdout', no_reader)
    assert train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/run', '--model=toy', *flags]) == 141
    assert Run(tmp_path / 'run').steps() == [step]


@pytest.mark.parametrize(('flags', 'step'), [(STEPS, 5), (SOLVED, 1)])
def test_a_training_whose_log_fills_the_disk_goes_on_to_its_end(
    data, tmp_path, monkeypatch, full_disk, flags, step, capfd
):
    """As it does where a checkpoint does; that lines are missing is told in the end."""
    monkeypatch.setattr(sys, 'stdout', full_disk)
    assert train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/run', '--model=toy', *flags]) == 1
    assert Run(tmp_path / 'run').steps()[-1] == step
    assert capfd.readouterr().err.endswith('standard output could not be written: No space left on device.\n')


@pytest.mark.slow
def test_a_file_system_without_locks_and_syncs_is_trained_on(data, tmp_path, monkeypatch, capfd):
    def refused(*_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(fcntl, 'flock', refused)
    monkeypatch.setattr(os, 'fsync', refused)
    monkeypatch.setattr(locks, '_warned_of', set())
    assert train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/run', '--model=toy', '--freeze_backbone']) == 0
    assert capfd.readouterr().err.count('knows no locks') == 1


def test_a_directory_that_may_not_be_written_is_refused_before_the_work_by_its_flag(
    data, tmp_path, monkeypatch, capfd
):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, 'TemporaryFile', refused)
    monkeypatch.setattr(streams, 'silent_stderr', contextlib.nullcontext)  # It needs one.
    (tmp_path / 'run').mkdir()
    assert train_toy(data, tmp_path / 'run', '--max_steps=1') == 1
    assert f'{tmp_path}/run: Permission denied' in (told := capfd.readouterr().err) and '--train_dir' in told
    assert not list((tmp_path / 'run').iterdir())


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_it_used(data, tmp_path, capfd):
    train_toy(data, tmp_path / 'run', '--epochs=2')
    run = Run(tmp_path / 'run')
    assert run.steps() == [3, 6]
    file = run.directory / 'ckpt-6.data-00000-of-00001'
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # The best checkpoint may be a hard link to the same bytes.
    file.write_bytes(content)
    capfd.readouterr()
    assert train_toy(data, tmp_path / 'run', '--epochs=3') == 0
    err = capfd.readouterr().err
    assert 'ckpt-6 is damaged' in err and 'goes on from step 3' in err


@pytest.mark.slow
def test_old_checkpoints_go_and_the_best_one_stays(data, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, 'SECONDS_BETWEEN_SAVES', 0)
    train_toy(data, tmp_path / 'run', '--epochs=12')
    run = Run(tmp_path / 'run')
    assert len(run.steps()) == KEPT
    rows = list(csv.DictReader((tmp_path / 'run/metrics.csv').open()))
    best = max(rows, key=lambda row: (float(row['validation_precision_at_1']), -int(row['step'])))
    assert run.best_step == int(best['step'])
    assert run.load().step == run.best_step


@pytest.mark.slow
def test_checkpoints_of_every_other_epoch_stay_for_good_when_asked(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--epochs=10', '--keep_every_epochs=2')
    run = Run(tmp_path / 'run')
    kept = [step for step in range(1, 31) if list(run.directory.glob(f'kept-{step}.index'))]
    assert kept == [6, 12, 18, 24, 30]  # Three steps an epoch.
    left_only_by_asking = set(kept) - set(run.steps()) - {run.best_step}
    assert left_only_by_asking
    for step in left_only_by_asking:
        assert run.load(step).step == step


@pytest.mark.slow
@pytest.mark.parametrize(('epochs', 'rows', 'kept'), [
    ('4', [(2, 1), (4, 2), (5, 3), (6, 4)], [4, 6]),
    ('2.5', [(2, 1), (4, 2)], [4]),
    ('0.4', [(1, 1)], []),
])
def test_an_epoch_ends_when_every_picture_was_seen_once_more(tmp_path, epochs, rows, kept):
    """Also where a batch is most of an epoch: 100 pictures, 64 a step."""
    data = toy_records.write(tmp_path / 'hundred', train=100)
    train_toy(data, tmp_path / 'run', f'--epochs={epochs}', '--batch_size=64', '--keep_every_epochs=2')
    with (tmp_path / 'run/metrics.csv').open() as table:
        assert [(int(row['step']), int(row['epoch'])) for row in csv.DictReader(table)] == rows
    assert sorted(int(path.stem.split('-')[1]) for path in (tmp_path / 'run').glob('kept-*.index')) == kept


def test_the_best_is_the_best_of_what_could_be_saved(data, tmp_path, monkeypatch, capsys):
    scores, save = iter([0.3, 0.9, 0.5, 0.8, 0.1]), Run.save
    monkeypatch.setattr(validation, 'function', lambda *_: lambda: SimpleNamespace(
        precision_at_1=next(scores), recall_at_5=1.0, loss=1.0, records=7))

    def failing(self, state):
        if int(state.step.numpy()) == 6:
            raise OSError(28, 'No space left on device')
        save(self, state)

    monkeypatch.setattr(Run, 'save', failing)
    assert train_toy(data, tmp_path / 'run', '--max_steps=15') == 0
    assert Run(tmp_path / 'run').best_step == 12  # 0.8; the 0.9 of step 6 is on no disk.
    assert '(best: 0.8000 at step 12)' in capsys.readouterr().out


@pytest.mark.slow
def test_patience_ends_a_run_that_no_longer_gets_better(data, tmp_path):
    assert train_toy(data, tmp_path / 'run', '--epochs=50', '--patience=2', '--initial_learning_rate=0') == 0
    assert Run(tmp_path / 'run').steps()[-1] == 9  # Three epochs: the first is the best, two are not better.


def test_a_second_training_is_refused_before_it_changes_anything(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    for step in Run(tmp_path / 'run').steps():
        Run(tmp_path / 'run')._remove('ckpt', step)  # As if the first one had not come to its first checkpoint.
    before = {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()}
    with lock(tmp_path / 'run'):
        assert train_toy(data, tmp_path / 'run', '--max_steps=99', '--optimizer=sgd', '--seed=9') == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize('saved', [b'step;epoch;loss\n3;1;0,5\n', 'step,epoch\n3,1\n'.encode('utf-16')])
def test_a_table_that_a_spreadsheet_saved_in_its_own_way_is_named(data, tmp_path, saved, capfd):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    (tmp_path / 'run/metrics.csv').write_bytes(saved)
    assert train_toy(data, tmp_path / 'run', '--max_steps=6') == 1
    assert 'metrics.csv is not the table that this program wrote' in capfd.readouterr().err


@pytest.mark.slow
def test_a_network_that_computes_with_copies_of_its_weights_is_the_same_when_it_is_read_again(data, tmp_path):
    """Else EfficientNet answers, and goes on, as if its pictures had never been normalised."""
    run = Run.create(tmp_path / 'run', recipes.plan({'model': 'toy_normalizing'}, None, 24), toy_records.LABELS, {})
    model = build_model(run.recipe, 4)
    normalization = model.get_layer('backbone').get_layer('normalization')
    normalization.set_weights([np.full(3, 120.0), np.full(3, 400.0), np.array(1)])
    normalization.finalize_state()
    run.save(State(model, averages=Averages(model, 0.9)))
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    expected = model(pictures)
    np.testing.assert_allclose(run.load('last', averages=False).model(pictures), expected, rtol=1e-6)
    again = State(build_model(run.recipe, 4), averages=Averages(model, 0.9))
    assert run.resume(again) == 0
    np.testing.assert_allclose(again.model(pictures), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['best', 'kept'])
def test_a_training_does_not_begin_among_the_checkpoints_of_another(data, tmp_path, kind, capfd):
    """The best of them would pass for its own."""
    run = tmp_path / 'run'
    assert train_toy(data, run, '--max_steps=3', '--keep_every_epochs=1') == 0
    for path in run.iterdir():
        if path.name.startswith(tuple({'ckpt-', 'best-', 'kept-'} - {f'{kind}-'})):
            path.unlink()
    assert train_toy(data, run, '--max_steps=3', '--seed=2') == 1
    assert f'{kind}-3' in capfd.readouterr().err


@pytest.mark.slow
def test_a_training_ends_when_its_records_are_built_again(data, tmp_path, monkeypatch, capfd):
    """It would go on with other pictures under the numbers of the old classes."""
    measure, new = journal.Journal.measure, toy_records.write(tmp_path / 'new', seed=7)

    def build_again_after_an_epoch(self, step, loss, scores):
        measure(self, step, loss, scores)
        data.rename(tmp_path / 'old')
        new.rename(data)

    monkeypatch.setattr(journal.Journal, 'measure', build_again_after_an_epoch)
    assert train_toy(data, tmp_path / 'run', '--epochs=4') == 1
    assert 'were built again while they were read' in capfd.readouterr().err
    assert Run(tmp_path / 'run').steps() == [3]


@pytest.mark.slow
def test_what_a_killed_copy_left_is_removed(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    (tmp_path / 'run/.best-3.data.77.tmp').write_bytes(b'half')
    train_toy(data, tmp_path / 'run', '--max_steps=4')
    assert not list((tmp_path / 'run').glob('.*.tmp'))
