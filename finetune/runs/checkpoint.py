"""Checkpoint files, written and read by TensorFlow, in a directory of whatever name."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.terminal import printable

PATTERN = frozenset('*?[\\')  # What a name may hold that TensorFlow takes for something else.


def write(checkpoint, path: Path) -> None:
    with taken_literally(path.parent) as directory:
        checkpoint.write(str(directory / path.name))


def read(checkpoint, path: Path) -> None:
    """Restores every object of the checkpoint, or raises what TensorFlow says of the file."""
    with taken_literally(path.parent) as directory:
        checkpoint.read(str(directory / path.name)).assert_existing_objects_matched().expect_partial()


def fingerprint(path: Path) -> str:
    """Other values, another fingerprint: that of the index, which holds the checksum of every tensor."""
    return hashlib.sha256(path.with_name(f'{path.name}.index').read_bytes()).hexdigest()


@contextlib.contextmanager
def taken_literally(directory: Path) -> Iterator[Path]:
    """The directory by a name that TensorFlow takes as it stands: its own, or that of a link to it, which then goes.

    TensorFlow writes a checkpoint under the name it is given, but looks for one by a pattern, and all that it takes is
    text in UTF-8. A relative name would do as well, but the directory that a process is in is that of all its threads.
    Raises Error where there can be no such link.
    """
    if _is_literal(directory):
        yield directory
        return
    with tempfile.TemporaryDirectory() as place:
        yield _linked(directory, Path(place, 'run'))


def _linked(directory: Path, link: Path) -> Path:
    try:
        link.symlink_to(directory.absolute())
        hindrance = '' if _is_literal(link) else 'its name is of that kind too'
    except OSError as error:
        hindrance = error.strerror
    if hindrance:
        raise Error(f'{printable(directory)}: TensorFlow cannot read from a directory with * ? [ \\ or bytes that are '
                    f'not UTF-8 in its name, and a link to it cannot be made in {printable(tempfile.gettempdir())} '
                    f'({hindrance}). Give --train_dir another name, or set TMPDIR to another folder.')
    return link


def _is_literal(path: Path) -> bool:
    return not PATTERN & set(str(path)) and os.fsencode(path).decode(errors='replace') == str(path)
