"""The order of the classes: from a labels file, or from the sorted names of the class folders."""

import re
from collections.abc import Iterable
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.terminal import printable
from finetune.records.dataset import BACKGROUND

_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')  # What would break the lines of a labels file.


def label_of(folder: bytes) -> str:
    """The label of a class folder: its name, with what no line of a text file can hold as escapes."""
    text = folder.decode('utf-8', 'backslashreplace')
    return _CONTROL.sub(lambda match: match[0].encode('unicode_escape').decode(), text)


def read_labels(path: str | Path, folders: Iterable[bytes] = ()) -> list[str]:
    """One label a line; line k is label k. Raises Error with the line number where a number could shift.

    Blanks around a label are dropped unless a folder is called exactly so.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise Error(f'{printable(path)}: {error.strerror}; --labels_file names a text file, one class a '
                    'line.') from None
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b'\n') + 1
        raise Error(f'{printable(path)} line {line} is not UTF-8; save the file as UTF-8.') from None
    exact = {label_of(folder) for folder in folders}
    lines = [line.removesuffix('\r') for line in text.split('\n')]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise Error(f'{printable(path)} holds no label; write one class folder name a line.')
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        label = line if line in exact else line.strip()
        wrong = _what_is_wrong(label, labels)
        if wrong:
            raise Error(f'{printable(path)} line {number} {wrong}')
        labels[label] = number
    return list(labels)


def _what_is_wrong(label: str, earlier: dict[str, int]) -> str:
    if not label:
        return 'is blank; a blank line would shift every later class number. Delete it.'
    if label in earlier:
        return f'repeats {printable(label)!r} of line {earlier[label]}; each class stands once. Delete one.'
    if label == BACKGROUND:
        return f'is {BACKGROUND!r}, which is always label 0 and never listed. Delete it.'
    return why_no_class(label)


def why_no_class(label: str) -> str:
    """What is wrong with a label that could be no folder; '' where nothing is."""
    if label in ('.', '..') or '/' in label or _CONTROL.search(label):
        return f'({printable(label)}) cannot be a class; a label is the name of a folder, never a path.'
    return ''
