"""What a build is going to do: which pictures, which labels, which splits; known before any picture is read."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from finetune import gate
from finetune.errors import Error
from finetune.records import BACKGROUND
from finetune.sources import Source, folders
from finetune.sources.labels import read_labels
from finetune.terminal import printable, some

AUTOMATIC_VALIDATION_PERCENT = 20.0  # As in Keras' tutorials: of 300 photos, 60 can tell 75 % from 90 %.
STORED_BY = ('max_side', 'short_side', 'max_bytes', 'max_pixels', 'no_symlinks', 'recursive')  # Flags.


@dataclass(frozen=True)
class Part:
    """One source, and the split that each of its pictures goes to."""

    source: Source
    splits: tuple[str, ...]
    split_of: Callable[[int], str]  # Of a picture's key, the first 64 bits of its digest.

    @property
    def pictures(self) -> int:
        return sum(self.source.per_label)


@dataclass(frozen=True)
class Plan:
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    shards: dict[str, int]  # By split.
    validation_percent: float  # 0 where a directory holds the validation pictures, or there are none.
    seed: int
    processes: int
    stored_by: dict  # The flags that decide which bytes are stored.

    @property
    def pictures(self) -> int:
        return sum(part.pictures for part in self.parts)

    def places(self, split: str) -> int:
        """How many pictures could become records of the split."""
        return sum(part.pictures for part in self.parts if split in part.splits)


@dataclass(frozen=True)
class Always:
    split: str

    def __call__(self, key: int) -> str:
        return self.split


@dataclass(frozen=True)
class ByContent:
    """The picture alone decides: it never changes sides when others come, and its copies go with it."""

    validation_percent: float

    def __call__(self, key: int) -> str:
        return 'validation' if key < self.validation_percent / 100 * 2**64 else 'train'


def make(options) -> Plan:
    """Lists the directories and reads the labels file that the flags name. Raises Error."""
    listings = {name: folders.list_pictures(directory, f'{name}_directory', options.recursive, not options.no_symlinks)
                for name in ('train', 'validation') if (directory := getattr(options, f'{name}_directory'))}
    labels = _labels(listings, options.labels_file)
    percent = _validation_percent(options)
    parts = []
    for name, listing in listings.items():
        loader = folders.FolderLoader(
            listing.directory, gate.Limits(options.max_bytes, options.max_pixels), options.max_side,
            options.short_side, not options.no_symlinks,
        )
        source = folders.ClassFolders(listing, labels, loader)
        parts.append(Part(source, ('train', 'validation'), ByContent(percent)) if percent else
                     Part(source, (name,), Always(name)))
    names = ('train', 'validation') if percent else tuple(listings)
    return Plan(
        labels, tuple(parts), {name: getattr(options, f'{name}_shards') for name in names}, percent, options.seed,
        options.num_threads or len(os.sched_getaffinity(0)), {name: getattr(options, name) for name in STORED_BY},
    )


def _validation_percent(options) -> float:
    if options.validation_directory:
        return 0.0
    return AUTOMATIC_VALIDATION_PERCENT if options.validation_percent is None else options.validation_percent


def _labels(listings: dict[str, folders.Listing], labels_file: str | None) -> tuple[str, ...]:
    """('background', class 1, …): the listed classes, or the training folders in code-point order."""
    train = listings['train']
    where, found = printable(train.directory), train.labels()
    if labels_file:
        listed = read_labels(labels_file, train.pictures)
        if not found & set(listed):
            raise Error(f'{printable(labels_file)}: none of its {len(listed)} classes has a folder in {where}, which '
                        f'has {some(sorted(found))}.')
        return (BACKGROUND, *listed)
    for listing in listings.values():
        extra = sorted(listing.labels() - found - {BACKGROUND})
        if extra:
            raise Error(f'{printable(listing.directory)}: class {some(extra)} has no folder in {where}. Add it there, '
                        'or leave it out with --labels_file.')
    if found == {BACKGROUND}:
        raise Error(f'{where} has pictures of the background and of no class.')
    return (BACKGROUND, *sorted(found - {BACKGROUND}))
