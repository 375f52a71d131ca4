"""File systems that lack a service, and folders that cannot be written to."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from finetune.console import command, files
from finetune.console.errors import Error


def failing(number: int):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize('number', [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_is_written_to_all_the_same(tmp_path, monkeypatch, number):
    """Network disks and folders shared with a virtual machine refuse it for a folder: git and others go on, too."""
    monkeypatch.setattr(os, 'fsync', failing(number))
    files.make_durable(tmp_path)
    files.write_atomically(tmp_path / 'a', b'whole')
    assert (tmp_path / 'a').read_bytes() == b'whole'


def test_a_disk_that_fails_while_it_syncs_is_an_error_that_names_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, 'fsync', failing(errno.EIO))
    flags = command.Flags('finetune cook [flags]', 'Cooks.')
    assert command.run(flags, lambda values: files.write_atomically(tmp_path / 'soup', b''), []) == 1
    assert capsys.readouterr().err == f'error: {tmp_path}/soup: Input/output error\n'


def test_an_error_of_the_system_that_names_no_file_names_the_command(capsys):
    """'the system: Function not implemented' says nothing."""
    flags = command.Flags('finetune cook --soup=NAME [flags]', 'Cooks.')
    assert command.run(flags, failing(errno.ENOSYS), []) == 1
    assert capsys.readouterr().err.startswith('error: `finetune cook` cannot go on')


def test_a_directory_is_made_once_and_left_as_it_was(tmp_path):
    assert files.prepare(tmp_path / 'a/b', 'soup is cooked there', '--pot')
    assert not files.prepare(tmp_path / 'a/b', 'soup is cooked there', '--pot')
    assert not list((tmp_path / 'a/b').iterdir())


@pytest.mark.parametrize('number', [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize('refuses', [(Path, 'mkdir'), (tempfile, 'TemporaryFile')])
def test_a_directory_that_may_not_be_written_is_told_with_its_flag(tmp_path, monkeypatch, number, refuses):
    """Root may write everywhere: the refusal is played."""
    monkeypatch.setattr(*refuses, failing(number))
    with pytest.raises(Error, match=f'{tmp_path}: {os.strerror(number)}; soup is cooked there. Choose another --pot'):
        files.prepare(tmp_path, 'soup is cooked there', '--pot')


def test_a_file_where_a_directory_is_wanted_is_called_one(tmp_path):
    (tmp_path / 'a').touch()
    with pytest.raises(Error, match=f'{tmp_path}/a: it is a file'):
        files.prepare(tmp_path / 'a', 'soup is cooked there', '--pot')
