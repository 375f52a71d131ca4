"""One file on a disk -> its bytes. Special files are not opened, and nothing larger than the limit is read."""

import errno
import os
import stat

from finetune.console.errors import Reject
from finetune.pictures import gate


def read(
    path: bytes | str | os.PathLike, limits: gate.Limits = gate.DEFAULT_LIMITS, follow_symlinks: bool = True
) -> bytes:
    """The bytes of a regular file. Never waits for a FIFO, never reads a device, never more than the limit."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
    except OSError as error:
        raise _why_not_opened(path, error, follow_symlinks) from None
    except ValueError as error:  # A NUL in the name.
        raise Reject('unreadable', str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Reject('not_a_regular_file', _kind_of_file(status.st_mode))
        if status.st_size > limits.max_bytes:
            raise Reject('file_too_big', f'{status.st_size} bytes; the limit is {limits.max_bytes}')
        data = _read_all(descriptor, status.st_size)
    except OSError as error:
        raise Reject('unreadable', error.strerror) from None
    finally:
        os.close(descriptor)
    if not data:
        raise Reject('empty_file', '0 bytes')
    return data


def _read_all(descriptor: int, size: int) -> bytes:
    """As many bytes as the file had when it was opened, or fewer; it may be growing or shrinking."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):  # Network disks give pieces.
        data += more
    return data


def _why_not_opened(path, error: OSError, follow_symlinks: bool) -> Reject:
    if error.errno == errno.ELOOP:
        return Reject('symlink_loop', 'a link that leads to itself') if follow_symlinks else \
            Reject('symlink', 'a symbolic link (--no_symlinks)')
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        is_link = os.path.islink(path)  # noqa: PTH114 - a Path cannot hold bytes.
        return Reject('symlink_dangling', 'a link to nothing') if is_link else \
            Reject('vanished', 'it is no longer there')
    if error.errno == errno.ENXIO:
        return Reject('not_a_regular_file', 'a socket or a device')
    return Reject('unreadable', error.strerror)


def _kind_of_file(mode: int) -> str:
    kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a FIFO', stat.S_IFSOCK: 'a socket'}
    return kinds.get(stat.S_IFMT(mode), 'a device')
