"""Where labelled pictures come from. A source lists them; its loader, in a worker process, gets at their bytes."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class LabeledImage(NamedTuple):
    """One picture that a source has, not yet read."""

    label: int  # 0 is the background, 1..N the classes.
    filename: bytes  # CLASS/NAME: what 'image/filename' will say.
    key: object  # What the loader needs to find it: a path, an offset, a row. Small: it travels to a process.
    notes: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """One picture as it will be stored."""

    encoded: bytes
    height: int
    width: int
    digest: bytes  # Of the picture, not of its file: equal for equal pictures; it can decide the split.
    notes: tuple[str, ...] = ()


class Skip(NamedTuple):
    """One file or folder that was found and is not in the records."""

    path: bytes
    reason: str
    detail: str


class Loader(Protocol):
    """A small value that can be sent to a worker process."""

    format: str  # Of what it loads: 'JPEG' or 'PNG'.

    def load(self, key) -> Loaded:
        """Raises Reject where the picture cannot be used."""


class Source(Protocol):
    where: str  # How a person names it: a directory, a file, a data set.
    loader: Loader
    per_label: Sequence[int]  # Pictures listed for each label.
    skipped: Sequence[Skip]  # What was found and will not even be tried.
    ignored: collections.Counter  # By reason: what claims to be no picture.

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """Every picture once, in an order that depends on the seed alone."""

    def path(self, image: LabeledImage) -> bytes:
        """Where a person finds the picture."""

    def stored_bytes(self) -> int:
        """About how many bytes the records will surely take; 0 where that is not known."""

    def remarks(self) -> Iterator[str]:
        """What a person should know before any picture is read."""
