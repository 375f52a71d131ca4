"""What is said of the machine, on any system."""

import os
import platform
import subprocess
import sys

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


@pytest.mark.slow
@pytest.mark.parametrize(('asked', 'kernels'), [(None, 'oneDNN'), ('0', 'Eigen'), ('1', 'oneDNN')])
@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='elsewhere TensorFlow chooses')
def test_onednn_computes_on_every_x86_processor_unless_the_user_has_chosen(asked, kernels):
    code = ('from finetune.console import machine; from finetune.console.lazy import tf; tf.constant(1); '
            'print(machine.kernels(), machine.describe()["kernels"])')
    environment = {name: value for name, value in os.environ.items() if name != 'TF_ENABLE_ONEDNN_OPTS'}
    environment |= {'TF_ENABLE_ONEDNN_OPTS': asked} if asked else {}
    told = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [kernels, kernels]


def test_the_features_of_a_processor_are_told_where_linux_tells_them(tmp_path, monkeypatch):
    (tmp_path / 'cpuinfo').write_text('model name\t: A 9\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name\t: B\n')
    monkeypatch.setattr(machine, 'CPUINFO', tmp_path / 'cpuinfo')
    assert (machine._processor(), machine._features()) == ('A 9', ['avx2', 'avx512_vnni'])
    monkeypatch.setattr(machine, 'CPUINFO', tmp_path / 'none')
    assert machine._processor() == platform.machine() and machine._features() == []


def test_records_are_built_there_too(not_linux, tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)  # As many processes as a test needs.
    pictures = toy.class_folders(tmp_path / 'pictures', {'cat': 3, 'dog': 3})
    assert build.main([f'--train_directory={pictures}', f'--output_directory={tmp_path}/records']) == 0


def test_pictures_are_answered_there_too(not_linux, tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=1)
    (tmp_path / 'a.jpg').write_bytes(toy_run.picture(1))
    assert predict.main([f'--checkpoint_dir={run.directory}', f'{tmp_path}/a.jpg']) == 0
