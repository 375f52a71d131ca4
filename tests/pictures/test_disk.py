"""What is opened and read, and what never is."""

import contextlib
import os
import socket

import pytest

from finetune.console.errors import Reject
from finetune.pictures import disk, gate

CONTENT = b'what may well be a picture'


def reason(path, **options) -> str:
    with pytest.raises(Reject) as caught:
        disk.read(path, **options)
    return caught.value.reason


def test_special_files_are_never_read(tmp_path):
    os.mkfifo(tmp_path / 'fifo.jpg')
    (tmp_path / 'folder.jpg').mkdir()
    (tmp_path / 'zero.jpg').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(tmp_path):  # The path of a socket must be short.
            listener.bind('socket.jpg')
        for name in ('fifo.jpg', 'folder.jpg', 'zero.jpg', 'socket.jpg'):
            assert reason(tmp_path / name) == 'not_a_regular_file'


def test_links_that_lead_nowhere_are_told_apart_from_files_that_vanished(tmp_path):
    (tmp_path / 'dangling.jpg').symlink_to('nothing.jpg')
    (tmp_path / 'loop.jpg').symlink_to('loop.jpg')
    assert reason(tmp_path / 'dangling.jpg') == 'symlink_dangling'
    assert reason(tmp_path / 'loop.jpg') == 'symlink_loop'
    assert reason(tmp_path / 'gone.jpg') == 'vanished'


def test_links_are_followed_unless_that_is_forbidden(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(CONTENT)
    (tmp_path / 'b.jpg').symlink_to('a.jpg')
    assert disk.read(tmp_path / 'b.jpg') == CONTENT
    assert reason(tmp_path / 'b.jpg', follow_symlinks=False) == 'symlink'


def test_an_empty_file_and_one_of_8_gib_are_rejected_unread(tmp_path):
    (tmp_path / 'empty.jpg').touch()
    with (tmp_path / 'sparse.jpg').open('wb') as file:
        file.truncate(8 << 30)
    assert reason(tmp_path / 'empty.jpg') == 'empty_file'
    assert reason(tmp_path / 'sparse.jpg') == 'file_too_big'


def test_names_that_are_not_utf8_are_read(tmp_path):
    name = b'latin1_\xe9\n.jpg'
    (tmp_path / os.fsdecode(name)).write_bytes(CONTENT)
    assert disk.read(os.fsencode(tmp_path) + b'/' + name) == CONTENT


def test_a_reason_names_no_flag_which_its_caller_may_not_have(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(CONTENT)
    with pytest.raises(Reject) as caught:
        disk.read(tmp_path / 'a.jpg', gate.Limits(max_bytes=10))
    assert caught.value.detail.endswith('the limit is 10')
