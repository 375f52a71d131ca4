"""The one lock: builds, trainings and kept features take it."""

import errno
import fcntl
import os

import pytest

from finetune.console import locks


@pytest.fixture
def flock_fails(monkeypatch):
    """flock that fails with the number given, on a file system that nobody was warned of yet."""
    def fails(number: int) -> None:
        def fail(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, 'flock', fail)
        monkeypatch.setattr(locks, '_warned_of', set())

    return fails


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_once_and_used(tmp_path, flock_fails, number, capsys):
    """Lustre mounted without flock, some of FUSE, NFS without its lock daemon."""
    flock_fails(number)
    for name in ('a', 'b'):
        with locks.held(tmp_path / name, pytest.fail):
            pass
    told = capsys.readouterr().err
    assert told.count('warning') == 1 and f'the file system of {tmp_path} knows no locks' in told


def test_a_lock_that_fails_otherwise_names_its_file(tmp_path, flock_fails):
    flock_fails(errno.EIO)
    with pytest.raises(OSError, match='Input/output error') as caught, locks.held(tmp_path / 'lock', pytest.fail):
        pass
    assert caught.value.filename == str(tmp_path / 'lock')


def test_a_second_process_hears_who_holds_the_lock(tmp_path):
    """An open file has a lock of its own, so one process can play two."""
    def refuse(pid):
        raise BlockingIOError(pid)

    with locks.held(tmp_path / 'lock', pytest.fail):
        with pytest.raises(BlockingIOError, match=str(os.getpid())), locks.held(tmp_path / 'lock', refuse):
            pass
        assert (tmp_path / 'lock').exists()
    assert not (tmp_path / 'lock').exists()
    with locks.held(tmp_path / 'lock', pytest.fail):
        pass
