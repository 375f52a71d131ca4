"""What is said of the machine, on any system."""

import os

import pytest

from finetune import build, predict
from finetune.console import machine
from tests import toy, toy_run


@pytest.fixture
def not_linux(monkeypatch):
    """A system that does not say which cores a process may use, as macOS."""
    monkeypatch.delattr(os, 'sched_getaffinity')


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    """In a container or under `taskset`, more workers than that only take each other's time."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 3}, raising=False)
    assert machine.cores() == 2


def test_the_cores_are_all_where_the_system_does_not_say_which(not_linux, monkeypatch):
    assert machine.cores() == os.cpu_count()
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert machine.cores() == 1


def test_a_number_is_published_there_too(not_linux):
    assert machine.describe()['cores'] == os.cpu_count()


def test_records_are_built_there_too(not_linux, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)  # As many processes as a test needs.
    pictures = toy.class_folders(tmp_path / 'pictures', {'cat': 3, 'dog': 3})
    assert build.main([f'--train_directory={pictures}', f'--output_directory={tmp_path}/records']) == 0


def test_pictures_are_answered_there_too(not_linux, tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=1)
    (tmp_path / 'a.jpg').write_bytes(toy_run.picture(1))
    assert predict.main([f'--checkpoint_dir={run.directory}', f'{tmp_path}/a.jpg']) == 0
