"""Files and folders on whatever file system they lie: written whole, made durable, found writable before the work."""

import contextlib
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from finetune.console.errors import Error
from finetune.console.terminal import printable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # By this file system, to anyone.


@contextlib.contextmanager
def naming(path: os.PathLike) -> Iterator[None]:
    """An OSError in the block that names no file, as those of write, fsync and flock, names this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def sync(descriptor: int, path: os.PathLike) -> None:
    """Waits until what was written would survive a power cut, where the file system has a way to wait for that."""
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def make_durable(path: Path) -> None:
    """Waits until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """The file is the old one or the new one, whole, whatever happens: temporary name beside it, fsync, rename."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with naming(path), temporary.open('wb') as file:
            yield file
            file.flush()
            sync(file.fileno(), path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    with written_atomically(path) as file:
        file.write(content)


def let_go(array) -> None:
    """Of what memory holds of a file that an array is mapped to: it is read again where it is asked for."""
    mapped = getattr(array, '_mmap', None)
    if mapped is not None and hasattr(mmap, 'MADV_DONTNEED'):  # Not on every system.
        mapped.madvise(mmap.MADV_DONTNEED)


def prepare(directory: Path, what: str, flag: str) -> bool:
    """Makes the directory where it is missing, and says whether it was; tries now whether files can be made in it.

    Raises Error, which names the flag, where they cannot: better before the work than after it. On a full disk,
    OSError.
    """
    try:
        is_new = _made(directory)
        with naming(directory), tempfile.TemporaryFile(dir=directory):
            return is_new
    except OSError as error:
        if error.errno in FULL:
            raise
        reason = 'it is a file' if isinstance(error, FileExistsError) else error.strerror
        raise Error(f'{printable(directory)}: {reason}; {what}. Choose another {flag}, or get the right to write '
                    'there.') from None


def _made(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True)
        return True
    except FileExistsError:
        if not directory.is_dir():
            raise
        return False
