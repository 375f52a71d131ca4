"""Which pictures were asked about: files, folders, lists on stdin."""

import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from finetune.building.sources import folders
from finetune.console import command
from finetune.console.errors import Reject, UsageError

URL = re.compile(r'[a-z][a-z0-9+.-]*://', re.IGNORECASE)
UTF_8_MARK, UTF_16_MARKS = b'\xef\xbb\xbf', (b'\xff\xfe', b'\xfe\xff')  # Some programs begin a text with them.


class Named(NamedTuple):
    """One file that was asked about, by its own name or by that of a folder, and why it will not be read."""

    path: str
    rejected: Reject | None = None

    @property
    def picture(self) -> str:
        """What the gate reads."""
        return self.path


def find_pictures(
    arguments: Iterable[str], others: folders.Others | None = None, left_out: Callable[[str], bool] = lambda path: False
) -> Iterator[Named]:
    """Files as they were named; of folders what `finetune build --recursive` would read or reject there.

    Files in them that are named as no pictures go to `others`; what is `left_out` of them is not there.
    """
    names = (_listed(sys.stdin.buffer) if argument == '-' else (argument,) for argument in arguments)
    for name in itertools.chain.from_iterable(names):
        path = name if os.path.lexists(name) else command.expanded(name)
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long.
            yield from (named for named in _in_folder(path, others) if not left_out(named.path))
        else:
            yield Named(path, _why_not_read(path))


def _listed(lines: io.BufferedReader) -> Iterator[str]:
    """The paths on stdin: one a line or, as no name holds a NUL, with NULs between them."""
    begins = lines.peek()
    if begins.startswith(UTF_16_MARKS) and b'\0' in begins:
        raise UsageError('the list on stdin is UTF-16: save it as UTF-8')
    if begins.startswith(UTF_8_MARK):
        lines.read(len(UTF_8_MARK))
    paths = lines.read().split(b'\0') if b'\0' in begins else (line.rstrip(b'\r\n') for line in lines)
    yield from (os.fsdecode(path) for path in paths if path.strip())


def _in_folder(folder: str, others: folders.Others | None) -> Iterator[Named]:
    for found in folders.walk(os.fsencode(folder)):
        if found.reason not in folders.COUNTED:
            yield Named(os.fsdecode(found.path), Reject(found.reason, found.detail) if found.reason else None)
        elif others is not None and found.reason == 'not_an_image_suffix':
            others.add(found.path)


def _why_not_read(path: str) -> Reject | None:
    """What is wrong with a path that somebody wrote. What is there, the gate judges."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Reject('not_found', 'a URL; download it first' if URL.match(path) else 'there is no such file or folder')
    except (OSError, ValueError):  # The gate says why it cannot be read.
        return None
    reason, detail = folders.why_unreadable(os.fsencode(path))
    return None if reason in folders.COUNTED else Reject(reason, detail)
