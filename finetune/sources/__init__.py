"""Where labelled pictures come from. A source lists them; its loader, in a worker process, gets at their bytes."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class LabeledImage(NamedTuple):
    """One picture that a source has, not yet read."""

    label: int  # 0 is the background, 1..N the classes.
    filename: bytes  # CLASS/NAME: what 'image/filename' will say.
    key: object  # What the loader needs to find it: a path, an offset, a row. Small: it travels to a worker process.
    notes: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """One picture as it will be stored."""

    encoded: bytes
    height: int
    width: int
    digest: bytes  # Of the picture as the source has it: equal for equal pictures, and what decides its split.
    notes: tuple[str, ...] = ()


class Loader(Protocol):
    """A small value that can be sent to a worker process."""

    format: str  # Of what it loads: 'JPEG' or 'PNG'.

    def load(self, key) -> Loaded:
        """Raises Reject where the picture cannot be used."""


class Source(Protocol):
    loader: Loader

    def __len__(self) -> int: ...

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """Every picture once, in an order that depends on the seed alone."""
