"""One process at a time: a lock goes with the process that holds it, however that ends."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from finetune.console import files
from finetune.console.terminal import printable, warn

_NOT_OFFERED = {*files.NOT_OFFERED, errno.ENOLCK}  # NFS without its lock daemon; Lustre and FUSE without flock.
_warned_of: set[int] = set()  # Devices.


@contextlib.contextmanager
def held(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock that this file is the name of; the file is there as long as the lock is.

    While another process holds it, `tell` hears of that one's id: it raises, or returns in order to wait. Where the
    file system knows no locks, that is a warning, and nobody is kept out.
    """
    file = _locked(path, tell)
    try:
        with contextlib.suppress(OSError):  # A full disk; the id is only for the other one's message.
            file.truncate(0)
            file.write(f'{os.getpid()}\n'.encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # It is gone, with its folder.
            path.unlink()
        file.close()


def _locked(path: Path, tell: Callable[[str], None]) -> BinaryIO:
    while True:
        file = path.open('a+b', buffering=0)
        try:
            _lock(file, path, tell)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # Its last holder removed the name between our open and our lock.


def _lock(file: BinaryIO, path: Path, tell: Callable[[str], None]) -> None:
    try:
        with files.naming(path):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        tell(file.read().decode(errors='replace').strip() or 'unknown')
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _warn(path.parent, error.strerror)


def _warn(directory: Path, reason: str) -> None:
    """Once for a file system."""
    device = directory.stat().st_dev
    if device not in _warned_of:
        _warned_of.add(device)
        warn(f'the file system of {printable(directory)} knows no locks ({reason}): nothing keeps a second command '
             'from writing there at the same time')
