"""A directory that appears whole or not at all: made in a private folder beside it, then exchanged for the old."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from finetune.console.errors import Error
from finetune.console.terminal import printable

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2: both names exist at every moment.


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Gives a new private folder; when the block ends well, it stands at `target` in place of what stood there.

    Order: lock, remove what a killed run left, work, make durable, exchange, remove the old. A second run that
    wants the same target is refused. A kill at any moment leaves the old directory or the new one, whole.
    """
    target = Path(os.path.realpath(target))
    if os.path.ismount(target):
        raise _mounted(target)
    private, old = (target.with_name(f'.{target.name}.{role}') for role in ('partial', 'old'))
    with _lock(target):
        _clear(target, private, old)
        private.mkdir()
        try:
            yield private
            make_durable(private)
            _put_in_place(private, target, old)
            make_durable(target.parent)
        finally:
            _clear(target, private, old)


def make_durable(path: Path) -> None:
    """Waits until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """The lock goes with the process that holds it, however that ends; the file is only its name."""
    path = target.with_name(f'.{target.name}.lock')
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or 'unknown'
            raise Error(f'{printable(target)}: another build (pid {pid}) is writing here; wait for it, or choose '
                        'another --output_directory.') from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # Its last holder removed the name between our open and our lock.
    try:
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _opened(lock: Path) -> TextIO:
    """The first thing that is written beside the target, whose parents are made where they are missing."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open('a+')
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise Error(f'{printable(lock.parent)}: {error.strerror}; records are made in this folder, beside those that '
                    'they replace. Choose another --output_directory, or get the right to write there.') from None


def _put_in_place(private: Path, target: Path, old: Path) -> None:
    if not target.exists():
        private.rename(target)
    elif not _exchange(private, target):
        target.rename(old)
        private.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names at once; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    if number == errno.EBUSY:  # A folder bound from the same disk, which looks like any other until now.
        raise _mounted(other)
    raise OSError(number, os.strerror(number), str(other))


def _mounted(target: Path) -> Error:
    return Error(f'{printable(target)} is a mount point, which cannot be exchanged for new records; name a folder '
                 f'in it: --output_directory={printable(target / "records")}')


def _clear(target: Path, private: Path, old: Path) -> None:
    if old.exists() and not target.exists():  # Stopped between the two renames.
        old.rename(target)
    for leftover in (private, old):
        if leftover.exists():
            shutil.rmtree(leftover)
