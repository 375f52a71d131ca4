"""MNIST as text: a line a picture, `label,pixel,…` of 28x28 grey pixels, .csv or .csv.gz, with or without a header."""

import codecs
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.building.sources.pixels import Row, SmallPictures
from finetune.console.errors import Error
from finetune.console.terminal import printable
from finetune.records.dataset import BACKGROUND

SIDE = 28  # px
DIGITS = tuple('0123456789')
GZIP = b'\x1f\x8b'
IDX = b'\0\0\x08'  # Two zeros, then the kind of its numbers: bytes.
HEAD_BYTES = 1024
NAMES = {  # Of the file, where a folder is given.
    'train': '*train*.csv*', 'validation': '*test*.csv*', 'test': '*test*.csv*'}


def source(path: str | Path, split: str, flag: str, classes: Sequence[str] = DIGITS) -> SmallPictures:
    """The pictures of a file, or of the file for `split` in a folder; label k of it is classes[k]. Raises Error."""
    file = _file(Path(path), split, flag)
    rows = list(_rows(file, len(classes)))
    if not rows:
        raise Error(f'{printable(file)} holds no pictures; a line is a label and {SIDE * SIDE} pixels.')
    return SmallPictures(file, (BACKGROUND, *classes), (SIDE, SIDE), {file: rows})


def _file(path: Path, split: str, flag: str) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob(NAMES[split]))
    if len(found) != 1:
        raise Error(f'--{flag}={printable(path)}: {len(found)} files in it are called {NAMES[split]}, expected one. '
                    'Name the file itself.')
    return found[0]


def _rows(path: Path, classes: int) -> Iterator[Row]:
    number = 0
    try:
        with path.open('rb') as raw:
            lines = gzip.GzipFile(fileobj=raw) if raw.peek(len(GZIP)).startswith(GZIP) else raw
            _check_text(path, lines.peek(HEAD_BYTES)[:HEAD_BYTES])
            for number, line in enumerate(lines, 1):
                fields = line.removeprefix(codecs.BOM_UTF8).split(b',')
                if line.strip() and not (number == 1 and _is_header(fields)):
                    yield _row(fields, classes, number, f'{printable(path)} line {number}')
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Error(f'{printable(path)} is cut short or damaged after line {number}. Fetch it again.') from None
    except OSError as error:
        raise Error(f'{printable(path)}: {error.strerror}. --source=mnist_csv reads a .csv or .csv.gz file.') from None


def _check_text(path: Path, head: bytes) -> None:
    """No text has a zero byte; no line of such a file could be mended."""
    if b'\0' in head:
        what = 'an IDX file, the form in which MNIST is published' if head.startswith(IDX) else 'no text file'
        raise Error(f'{printable(path)} is {what}; --source=mnist_csv reads text, a line a picture: a label and '
                    f'{SIDE * SIDE} pixels. Take the version in .csv or .csv.gz, or --source=tfds --tfds=mnist.')


def _is_header(fields: Sequence[bytes]) -> bool:
    """A bad label, such as -1 or 5.0, is still a number."""
    try:
        float(fields[0])
    except ValueError:
        return True
    return False


def _row(fields: Sequence[bytes], classes: int, number: int, place: str) -> Row:
    if len(fields) != 1 + SIDE * SIDE:
        raise Error(f'{place} has {len(fields)} values, expected a label and {SIDE * SIDE} pixels. '
                    'Mend or delete the line.')
    try:
        label, pixels = int(fields[0]), bytes(map(int, fields[1:]))
    except ValueError:
        raise Error(f'{place} has a value that is no whole number from 0 to 255. Mend or delete the line.') from None
    if not 0 <= label < classes:
        raise Error(f'{place} has label {label}, expected 0 to {classes - 1}. Mend or delete the line, or name '
                    'all classes with --labels_file.')
    return Row(label + 1, number, pixels)
