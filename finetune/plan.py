"""What a build is going to do: which pictures, which labels, which splits. Everything here is known before the first
picture is read."""

from collections.abc import Callable
from dataclasses import dataclass

from finetune import gate
from finetune.errors import Error
from finetune.records import BACKGROUND
from finetune.sources import Source, folders
from finetune.sources.labels import label_of, read_labels
from finetune.terminal import printable

AUTOMATIC_VALIDATION_PERCENT = 20.0  # As in Keras' tutorials: of 300 photos, 60 can tell 80 % from 90 %.


@dataclass(frozen=True)
class Part:
    """One source, and the split that each of its pictures goes to."""

    listing: folders.Listing
    source: Source
    split_of: Callable[[int], str]  # Of a picture's key.
    splits: tuple[str, ...]  # What split_of can answer.


@dataclass(frozen=True)
class Plan:
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    shards: dict[str, int]  # By split.
    validation_percent: float  # 0 where a directory holds the validation pictures.
    automatic_percent: bool
    seed: int
    processes: int
    options: dict  # What decides the stored bytes, for dataset.json.

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.shards)

    def places(self, split: str) -> int:
        """How many pictures could become records of the split."""
        return sum(len(part.source) for part in self.parts if split in part.splits)

    def found(self) -> int:
        return sum(len(part.source) for part in self.parts)

    def jpeg_bytes(self) -> int:
        """About how much the pictures that are named as JPEGs take, from a sample of their sizes."""
        return sum(part.source.jpeg_bytes() for part in self.parts)


def make(options, processes: int) -> Plan:
    """Lists the directories and reads the labels file that the flags name. Raises Error."""
    listings = {'train': folders.list_pictures(options.train_directory, 'train_directory', options.recursive)}
    if options.validation_directory:
        listings['validation'] = folders.list_pictures(
            options.validation_directory, 'validation_directory', options.recursive)
    labels = _labels(listings, options.labels_file)
    percent = _validation_percent(options)
    limits = gate.Limits(options.max_bytes, options.max_pixels)
    parts = []
    for name, listing in listings.items():
        loader = folders.FolderLoader(
            listing.directory, limits, options.max_side, options.short_side, not options.no_symlinks)
        source = folders.ClassFolders(listing, labels, loader)
        if percent:
            parts.append(Part(listing, source, ByContent(percent), ('train', 'validation')))
        else:
            parts.append(Part(listing, source, Always(name), (name,)))
    names = ('train', 'validation') if percent else tuple(listings)
    shards = {name: getattr(options, f'{name}_shards') for name in names}
    kept = ('max_side', 'short_side', 'max_bytes', 'max_pixels', 'no_symlinks', 'recursive')
    return Plan(
        labels, tuple(parts), shards, percent, percent > 0 and options.validation_percent is None, options.seed,
        processes, {name: getattr(options, name) for name in kept},
    )


@dataclass(frozen=True)
class Always:
    split: str

    def __call__(self, key: int) -> str:
        return self.split


@dataclass(frozen=True)
class ByContent:
    """The split follows from the picture alone: it never moves when others come, and its copies go with it."""

    validation_percent: float

    def __call__(self, key: int) -> str:
        return 'validation' if key < self.validation_percent / 100 * 2**64 else 'train'


def _validation_percent(options) -> float:
    if options.validation_directory:
        return 0.0
    return AUTOMATIC_VALIDATION_PERCENT if options.validation_percent is None else options.validation_percent


def _labels(listings: dict[str, folders.Listing], labels_file: str | None) -> tuple[str, ...]:
    """('background', class 1, …): the listed classes, or the training folders in code-point order."""
    found = {name: {label_of(folder): folder for folder in listing.pictures} for name, listing in listings.items()}
    if labels_file:
        listed = read_labels(labels_file, listings['train'].pictures)
        if not set(listed) & set(found['train']):
            raise Error(f'{printable(labels_file)}: none of its {len(listed)} classes has a folder in '
                        f'{printable(listings["train"].directory)}, which has {_some(sorted(found["train"]))}.')
        return (BACKGROUND, *listed)
    extra = sorted(set(found.get('validation', ())) - set(found['train']) - {BACKGROUND})
    if extra:
        raise Error(f'{printable(listings["validation"].directory)}: class {_some(extra)} has no folder in '
                    f'{printable(listings["train"].directory)}. Add it there, or leave it out with --labels_file.')
    classes = sorted(set(found['train']) - {BACKGROUND})
    if not classes:
        raise Error(f'{printable(listings["train"].directory)} has pictures of the background and of no class.')
    return (BACKGROUND, *classes)


def _some(names: list[str], most: int = 5) -> str:
    text = ', '.join(repr(printable(name)) for name in names[:most])
    return text + (f' and {len(names) - most} more' if len(names) > most else '')
