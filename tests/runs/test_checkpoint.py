"""A run is read from the directory that it was written to, whatever its name, and what cannot be read is told truly."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.records import batches, dataset
from finetune.runs.run import Run
from finetune.runs.state import State, build_model
from finetune.runs.summaries import Summaries
from tests import toy_records, toy_run

NAMES = [b'a[1]', b'a\\b', b'a*', b'a?', b'a{b}', b'[', b'a\xffb', 'é花'.encode(), b'a\nb', b'-a b']


def named(directory: Path, name: bytes) -> Path:
    path = directory / os.fsdecode(name)
    path.mkdir()
    return path


def first_weight(run: Run) -> np.ndarray:
    return run.load('last').model.weights[0].numpy()


@pytest.mark.parametrize('name', NAMES)
def test_a_run_is_read_from_a_directory_of_any_name_and_never_from_a_sibling(tmp_path, name):
    """As patterns, `a[1]`, `a*`, and `a?` are the name `a1` too."""
    run, sibling = toy_run.start_run(named(tmp_path, name)), toy_run.start_run(tmp_path / 'a1')
    toy_run.save_checkpoint(run, step=7, seed=1)
    assert {path.name for path in run.directory.glob('ckpt-*')} == {'ckpt-7.index', 'ckpt-7.data-00000-of-00001'}
    written = first_weight(run)
    toy_run.save_checkpoint(sibling, step=7, seed=2)
    assert (first_weight(run) == written).all() and (first_weight(sibling) != written).all()
    model = build_model(run.recipe, len(run.labels))
    assert run.resume(State(model)) == 7
    assert run.load('last').path == str(run.directory / 'ckpt-7')


def test_a_directory_that_is_named_from_where_one_stands_is_read_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = toy_run.start_run(Path('a[1]'))
    toy_run.save_checkpoint(run, step=7)
    assert run.load('last').step == 7


@pytest.mark.parametrize('name', NAMES)
def test_records_and_curves_may_lie_in_a_directory_of_any_name(tmp_path, name):
    directory = named(tmp_path, name)
    toy_records.write(directory, train=6, validation=0)
    pictures = batches.for_evaluation(dataset.open_records(directory), 'train', 16, 0.875, 4)
    assert sum(len(batch['label']) for batch in pictures) == 6
    Summaries(directory).scalars(1, {'loss': 1.0})
    assert list(directory.glob('events.*'))


@pytest.mark.parametrize('hindrance', ['the temporary folder', 'no links'])
def test_a_name_that_tensorflow_cannot_be_given_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, hindrance,
):
    if hindrance == 'no links':
        def symlink_to(self, target):
            raise PermissionError(1, 'Operation not permitted', str(self))
        monkeypatch.setattr(Path, 'symlink_to', symlink_to)
    else:
        monkeypatch.setattr(tempfile, 'tempdir', str(named(tmp_path, b't[2]')))
    directory = named(tmp_path, b'a[1]')
    with pytest.raises(Error, match=r'a\[1\].*--train_dir'):
        toy_run.start_run(directory)
    assert not list(directory.iterdir())


def test_a_run_that_was_there_before_is_not_called_damaged_where_no_link_to_it_can_be_made(
    tmp_path, monkeypatch, capsys,
):
    run = toy_run.start_run(named(tmp_path, b'a[1]'))
    toy_run.save_checkpoint(run, step=7)
    monkeypatch.setattr(tempfile, 'tempdir', str(named(tmp_path, b't[2]')))
    for read in (lambda: run.load('last'), lambda: run.resume(State(build_model(run.recipe, len(run.labels))))):
        with pytest.raises(Error, match=r'TMPDIR'):
            read()
    assert 'damaged' not in capsys.readouterr().err


def test_what_tensorflow_does_not_find_is_not_called_damaged(tmp_path, monkeypatch, capsys):
    """Who believes it deletes good work."""
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=7)

    def finds_nothing(*_):
        raise tf.errors.NotFoundError(None, None, 'Failed to find any matching files')

    monkeypatch.setattr(tf.train.Checkpoint, 'read', finds_nothing)
    with pytest.raises(Error) as resumed:
        run.resume(State(build_model(run.recipe, len(run.labels))))
    with pytest.raises(Error) as loaded:
        run.load('last')
    told = capsys.readouterr().err + str(resumed.value) + str(loaded.value)
    assert 'damaged' not in told and 'Train first' not in told
    assert f'{run.directory}/ckpt-7 is there, but TensorFlow does not find it' in told


def test_a_checkpoint_that_is_damaged_or_lacks_a_part_is_told_of_and_the_one_before_it_is_read(tmp_path, capsys):
    run = toy_run.start_run(tmp_path / 'run')
    for step in (7, 8, 9):
        toy_run.save_checkpoint(run, step)
    index = run.directory / 'ckpt-9.index'
    index.write_bytes(index.read_bytes()[:40])
    (run.directory / 'ckpt-8.data-00000-of-00001').unlink()
    assert run.load('last').step == 7
    err = capsys.readouterr().err
    assert 'ckpt-9 is damaged' in err and 'ckpt-8 is damaged or incomplete' in err and 'No such file' in err
