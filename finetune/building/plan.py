"""What a build is going to do: which pictures, which labels, which splits; known before any picture is read.

Only which picture validates, where its content decides, is known when all have been read: `by_content`.
"""

import collections
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.building import conversion
from finetune.building.sources import Source, folders, layout
from finetune.building.sources.labels import read_labels
from finetune.console import machine
from finetune.console.errors import Error, UsageError
from finetune.console.lazy import LazyModule
from finetune.console.terminal import printable, some
from finetune.pictures import gate
from finetune.records.dataset import BACKGROUND

# Imported when they are asked for: they need NumPy, which takes half of the time that folders take to start.
cifar10 = LazyModule('finetune.building.sources.cifar10', needs_tensorflow=False)
mnist_csv = LazyModule('finetune.building.sources.mnist_csv', needs_tensorflow=False)
tfds = LazyModule('finetune.building.sources.tfds', needs_tensorflow=False)

AUTOMATIC_VALIDATION_PERCENT = 20.0  # As in Keras' tutorials: of 300 photos, 60 can tell 75 % from 90 %.
STORED_BY = (  # Flags, of folders.
    'max_side', 'short_side', 'sixteen_bit_max', 'max_bytes', 'max_pixels', 'no_symlinks', 'recursive')


@dataclass(frozen=True)
class Part:
    """One source, and the split that its pictures go to; where there are two, their content decides."""

    source: Source
    splits: tuple[str, ...]

    @property
    def pictures(self) -> int:
        return sum(self.source.per_label)

    @property
    def only_split(self) -> str | None:
        return self.splits[0] if len(self.splits) == 1 else None

    def split_of_each(self, keys: Sequence[int], labels: Sequence[int], validation_percent: float) -> Sequence[str]:
        """Of pictures that have all been judged, by place."""
        return [self.only_split] * len(keys) if self.only_split else by_content(keys, labels, validation_percent)


@dataclass(frozen=True)
class Plan:
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    shards: dict[str, int]  # By split.
    validation_percent: float  # 0 where a directory holds the validation pictures, or there are none.
    seed: int
    processes: int  # 0: everything happens in this one.
    stored_by: dict  # The flags that decide which bytes are stored.

    @property
    def pictures(self) -> int:
        return sum(part.pictures for part in self.parts)

    def places(self, split: str) -> int:
        """How many pictures could become records of the split."""
        return sum(part.pictures for part in self.parts if split in part.splits)


SPLIT_VERSION = 2  # Of the rule below, and of what a key is taken of. A new one moves pictures once.


def by_content(keys: Sequence[int], labels: Sequence[int], validation_percent: float) -> list[str]:
    """The split of each picture: 'train' or 'validation', within each class, once all pictures have been judged.

    A key is drawn evenly, by the picture alone. The pictures of a class with the smallest keys validate: its share,
    rounded, but at least one of two or more, and never all, so that a class of one picture trains. Copies of a picture
    have one key, count once and stay together. A picture that lies in several classes trains and counts for none of
    their shares: one of its labels is wrong, and nothing should be measured by it.

    Neither names nor the order matter. When pictures are added, only those whose keys lie next to the last one that
    validates can change sides: one at most when one is added, about 1 % of a class of 800 when it doubles.
    Keys are those of `conversion.Outcome`: a 0 is no picture, and its split says nothing.
    """
    in_several = _in_several_classes(keys, labels)
    own: dict[int, array] = collections.defaultdict(lambda: array('Q'))  # Keys by label.
    for key, label in zip(keys, labels, strict=True):
        if key and key not in in_several:
            own[label].append(key)
    last = {label: _last_to_validate(found, validation_percent) for label, found in own.items()}
    return ['validation' if key not in in_several and 0 < key <= last.get(label, 0) else 'train'
            for key, label in zip(keys, labels, strict=True)]


def _in_several_classes(keys: Sequence[int], labels: Sequence[int]) -> set[int]:
    labels_of = {key: set() for key in conversion.repeated([keys])}
    for key, label in zip(keys, labels, strict=True):
        if key in labels_of:
            labels_of[key].add(label)
    return {key for key, found in labels_of.items() if len(found) > 1}


def _last_to_validate(keys: Sequence[int], validation_percent: float) -> int:
    """The largest key of one class that validates; 0, less than any, where none does."""
    different = sorted(set(keys))
    share = min(max(round(len(different) * validation_percent / 100), 1), len(different) - 1)
    return different[share - 1] if share else 0


def make(options) -> Plan:
    """Lists what the flags name. Raises Error."""
    labels, sources = SOURCES[options.source](options)
    percent = _validation_percent(options, sources)
    parts = [Part(source, ('train', 'validation') if percent else (name,)) for name, source in sources.items()]
    names = ('train', 'validation') if percent else tuple(sources)
    # Small pictures of known kinds cost less than the way to another process, and no decoder dies of them.
    processes = (options.num_threads or machine.cores()) if options.source == 'folders' else 0
    stored_by = {'source': options.source, **{name: getattr(options, name) for name in STORED_BY}}
    return Plan(
        labels, tuple(parts), {name: getattr(options, f'{name}_shards') for name in names}, percent, options.seed,
        processes, stored_by)


def _directories(options) -> dict[str, str]:
    """By split."""
    return {name: directory for name in ('train', 'validation') if (directory := getattr(options, f'{name}_directory'))}


def _class_folders(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    listings = {name: folders.list_pictures(directory, f'{name}_directory', options.recursive, not options.no_symlinks)
                for name, directory in _directories(options).items()}
    for listing in listings.values():
        layout.check_pictures(listing)
    labels = _labels(listings, options.labels_file)
    limits = gate.Limits(options.max_bytes, options.max_pixels)
    return labels, {
        name: folders.ClassFolders(listing, labels, folders.FolderLoader(
            listing.directory, limits, options.max_side, options.short_side, options.sixteen_bit_max,
            not options.no_symlinks))
        for name, listing in listings.items()}


def _mnist_csv(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    classes = read_labels(options.labels_file) if options.labels_file else mnist_csv.DIGITS
    return (BACKGROUND, *classes), {
        name: mnist_csv.source(path, name, f'{name}_directory', classes)
        for name, path in _directories(options).items()}


def _cifar10(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    return (BACKGROUND, *cifar10.CLASSES), {
        name: cifar10.source(path, name, f'{name}_directory') for name, path in _directories(options).items()}


def _tfds(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    splits = options.tfds_splits.split(',') if options.tfds_splits else ()
    sources = tfds.sources(options.tfds, options.tfds_dir, splits)
    if options.validation_percent is not None and 'validation' in sources:
        raise UsageError(f'{options.tfds} has a split to validate with: leave --validation_percent out, or name the '
                         'training split alone (--tfds_splits=train)')
    return sources['train'].labels, sources


SOURCES = {'folders': _class_folders, 'mnist_csv': _mnist_csv, 'cifar10': _cifar10, 'tfds': _tfds}  # By --source.


def _validation_percent(options, sources: dict[str, Source]) -> float:
    if 'validation' in sources:
        return 0.0
    return AUTOMATIC_VALIDATION_PERCENT if options.validation_percent is None else options.validation_percent


def _labels(listings: dict[str, folders.Listing], labels_file: str | None) -> tuple[str, ...]:
    """('background', class 1, …): the listed classes, or the training folders in code-point order."""
    train = listings['train']
    where, found = printable(train.directory), train.labels()
    if labels_file:
        listed = read_labels(labels_file, train.pictures)
        if not found & set(listed):
            layout.check_classes(train)
            raise Error(f'{printable(labels_file)}: none of its {len(listed)} classes has a folder in {where}, which '
                        f'has {some(sorted(found))}.')
        return (BACKGROUND, *listed)
    layout.check_classes(train)
    for listing in listings.values():
        for folder, label in folders.nearly(listing.labels(), found):
            raise Error(f'{printable(listing.directory)}: folder {folder!a} is nearly class {label!a} of {where}; they '
                        f'differ {folders.NEARLY}. Rename one of them.')
        extra = sorted(listing.labels() - found - {BACKGROUND})
        if extra:
            layout.check_classes(listing)
            raise Error(f'{printable(listing.directory)}: class {some(extra)} has no folder in {where}. Add it there, '
                        'or leave it out with --labels_file.')
    if found == {BACKGROUND}:
        raise Error(f'{where} has pictures of the background and of no class.')
    return (BACKGROUND, *sorted(found - {BACKGROUND}))
