"""A directory that appears whole or not at all: made in a private folder beside it, then exchanged for the old."""

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from finetune.console import files, locks
from finetune.console.errors import Error
from finetune.console.terminal import printable

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2: both names exist at every moment.


@contextlib.contextmanager
def replacing(target: Path, flag: str = '--output_directory') -> Iterator[Path]:
    """Gives a new private folder; when the block ends well, it stands at `target` in place of what stood there.

    Order: lock, remove what a killed run left, work, make durable, exchange, remove the old. A second run that
    wants the same target is refused. A kill at any moment leaves the old directory or the new one, whole. `flag` is
    what chooses the target, for those messages that ask for another one.
    """
    target = Path(os.path.realpath(target))
    if os.path.ismount(target):
        raise _mounted(target, flag)
    private, old = (target.with_name(f'.{target.name}.{role}') for role in ('partial', 'old'))
    files.prepare(target.parent, f'{printable(target.name)} is made in this folder, beside what it replaces', flag)
    with locks.held(target.with_name(f'.{target.name}.lock'), lambda pid: _refuse(target, pid, flag)):
        _clear(target, private, old)
        private.mkdir()
        try:
            yield private
            files.make_durable(private)
            _put_in_place(private, target, old, flag)
            files.make_durable(target.parent)
        finally:
            _clear(target, private, old)


@contextlib.contextmanager
def told_when_full(target: Path, flag: str = '--output_directory') -> Iterator[None]:
    """To be entered before `replacing`, so that what is half made has gone when it is told."""
    try:
        with files.naming(target):
            yield
    except OSError as error:
        if error.errno not in files.FULL:
            raise
        raise Error(f'{printable(target)}: {error.strerror}; nothing was changed. Make room, or choose another '
                    f'{flag}.') from None


def _refuse(target: Path, pid: str, flag: str) -> NoReturn:
    raise Error(f'{printable(target)}: another build (pid {pid}) is writing here; wait for it, or choose another '
                f'{flag}.')


def _put_in_place(private: Path, target: Path, old: Path, flag: str) -> None:
    if not target.exists():
        private.rename(target)
    elif not _exchange(private, target, flag):
        target.rename(old)
        private.rename(target)


def _exchange(one: Path, other: Path, flag: str) -> bool:
    """Swaps two names at once; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in files.NOT_OFFERED:
        return False
    if number == errno.EBUSY:  # A folder bound from the same disk, which looks like any other until now.
        raise _mounted(other, flag)
    raise OSError(number, os.strerror(number), str(other))


def _mounted(target: Path, flag: str) -> Error:
    return Error(f'{printable(target)} is a mount point, which cannot be exchanged for another directory; name a '
                 f'folder in it: {flag}={printable(target / "records")}')


def _clear(target: Path, private: Path, old: Path) -> None:
    if old.exists() and not target.exists():  # Stopped between the two renames.
        old.rename(target)
    for leftover in (private, old):
        if leftover.exists():
            shutil.rmtree(leftover)
