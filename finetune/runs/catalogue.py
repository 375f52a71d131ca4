"""The named recipes: one JSON file each in the folder `named`."""

import dataclasses
import difflib
import json
from pathlib import Path

from finetune.console.errors import UsageError
from finetune.console.terminal import printable

FOLDER = Path(__file__).with_name('named')


@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    about: str
    source: str  # Where the numbers come from.
    published: str  # The result that is published for them.
    here: str  # What was measured with this program, or that it was not run.
    time: str  # How long it is expected to take, and on what.
    notes: tuple[str, ...]  # Where it differs from its source, and why.
    flags: dict  # Of `finetune train`, with their values.


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob('*.json'))


def find(name: str) -> Named:
    """Raises UsageError."""
    if name not in names():
        near = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.4) or names()
        raise UsageError(f'--recipe={printable(name)} is not known. Did you mean {" or ".join(near)}? '
                         '`finetune recipes` lists them all.')
    content = json.loads((FOLDER / f'{name}.json').read_text(encoding='utf-8'))
    return Named(name, **{**content, 'notes': tuple(content['notes'])})
