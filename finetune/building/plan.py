"""What a build is going to do: which pictures, which labels, which splits; known before any picture is read.

Only which picture validates or tests, where its content decides, is known when all have been read: `by_content`.
"""

import collections
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.building import conversion, groups
from finetune.building.sources import Source, folders, labels_csv, layout
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

SPLITS = ('train', 'validation', 'test')
DIRECTORIES = tuple(f'{split}_directory' for split in SPLITS)  # The flags.
AUTOMATIC_VALIDATION_PERCENT = 20.0  # As in Keras' tutorials: of 300 photos, 60 can tell 75 % from 90 %.
MOST_VALIDATION = 50_000  # Pictures, where nobody asked for more: they tell 0.900 from 0.903, at the price of a minute.
SHARD_PICTURES, SHARD_BYTES = 10_000, 256_000_000  # About, at most, where nobody says how many shards there shall be.
FEW_PICTURES, FEW_SHARDS, LEAST_SHARDS = 1_000, 2, 8  # To so few pictures, so few shards; to more, at least so many.
STORED_BY = (  # Flags, of folders.
    'max_side', 'short_side', 'sixteen_bit_max', 'max_bytes', 'max_pixels', 'no_symlinks', 'recursive')


@dataclass(frozen=True)
class Part:
    """One source, and the split that its pictures go to; where there are several, their content decides."""

    source: Source
    splits: tuple[str, ...]  # In the order of SPLITS.
    near: groups.Near | None = None  # Pictures that are to stay on one side.

    @property
    def pictures(self) -> int:
        return sum(self.source.per_label)

    @property
    def only_split(self) -> str | None:
        return self.splits[0] if len(self.splits) == 1 else None

    def split_of_each(self, keys: Sequence[int], labels: Sequence[int], percents: Mapping[str, float]) -> Sequence[str]:
        """Of pictures that have all been judged, by place."""
        if self.only_split:
            return [self.only_split] * len(keys)
        shared = groups.shared_keys(self.near.pairs, keys) if self.near else {}
        return by_content(keys, labels, percents.get('validation', 0), percents.get('test', 0), shared)


@dataclass(frozen=True)
class Plan:
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    shards: dict[str, int]  # By split.
    percents: dict[str, float]  # Of the training pictures, by each split that is chosen from them by content.
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


def by_content(
    keys: Sequence[int], labels: Sequence[int], validation_percent: float, test_percent: float = 0,
    shared: Mapping[int, int] | None = None,
) -> list[str]:
    """The split of each picture, within each class, once all pictures have been judged. A percentage of 0: none.

    A key is drawn evenly, by the picture alone. The pictures of a class with the smallest keys validate, those with the
    largest are the test: its share, rounded, but at least one of what the others leave, so that a class of one picture
    trains, and one of two validates too. Between them lie those that train: a test set that is switched on or enlarged
    moves no picture that validates. Copies of a picture have one key, count once and stay together. A picture that lies
    in several classes trains and counts for none of their shares: one of its labels is wrong, and nothing should be
    measured by it.

    Near-duplicates stay together where their keys are `shared`: by a key, that of its group. Whole groups are taken in
    the order of their keys as long as they fit into the share, which counts pictures as ever; where none fits, the
    smallest, unless it is the last. A group that lies in several classes trains, as such a picture does.

    Neither names nor the order matter. When pictures are added, only those whose keys lie next to a boundary can change
    sides: at each one at most when one is added, about 1 % of a class of 800 when it doubles.
    Keys are those of `conversion.Outcome`: a 0 is no picture, and its split says nothing.
    """
    shared = shared or {}
    of_group = array('Q', (shared.get(key, key) for key in keys))
    in_several = _in_several_classes(of_group, labels)
    own: dict[int, array] = collections.defaultdict(lambda: array('Q'))  # Keys of pictures, by label.
    for key, group, label in zip(keys, of_group, labels, strict=True):
        if key and group not in in_several:
            own[label].append(key)
    chosen: dict[int, str] = {}  # By the key of a group, or of a picture that is in none.
    for found in own.values():
        chosen |= _chosen(collections.Counter(shared.get(key, key) for key in set(found)), validation_percent,
                          test_percent)
    return [chosen.get(group, 'train') for group in of_group]


def _in_several_classes(keys: Sequence[int], labels: Sequence[int]) -> set[int]:
    labels_of = {key: set() for key in conversion.repeated([keys])}
    for key, label in zip(keys, labels, strict=True):
        if key in labels_of:
            labels_of[key].add(label)
    return {key for key, found in labels_of.items() if len(found) > 1}


def _chosen(sizes: Mapping[int, int], validation_percent: float, test_percent: float) -> dict[int, str]:
    """The split of those keys of one class that do not train. `sizes`: different pictures, by key."""
    left, pictures = sorted(sizes), sum(sizes.values())
    chosen, others = {}, pictures - 1
    for split, percent, from_the_end in (('validation', validation_percent, False), ('test', test_percent, True)):
        taken = _fitting(left[::-1] if from_the_end else left, sizes, _share(pictures, percent, others))
        chosen |= dict.fromkeys(taken, split)
        left = [key for key in left if key not in chosen]
        others -= sum(map(sizes.get, taken))
    return chosen


def _fitting(keys: Sequence[int], sizes: Mapping[int, int], pictures: int) -> list[int]:
    """The first keys that together have as many pictures; never the last one that is left to train."""
    taken, room = [], pictures
    for key in keys if room else ():
        if sizes[key] <= room:
            taken.append(key)
            room -= sizes[key]
        if not room:
            break
    if pictures and not taken and len(keys) > 1:
        taken = [min(keys, key=sizes.get)]
    return taken


def _share(count: int, percent: float, most: int) -> int:
    return min(max(round(count * percent / 100), 1), most) if percent else 0


def make(options) -> Plan:
    """Lists what the flags name. Raises Error."""
    labels, sources = SOURCES[options.source](options)
    percents = _percents(options, sources)
    near = _near(options, sources, percents)
    parts = [Part(source, (name, *percents), near) if name == 'train' else Part(source, (name,))
             for name, source in sources.items()]
    # Small pictures of known kinds cost less than the way to another process, and no decoder dies of them.
    processes = (options.num_threads or machine.cores()) if options.source == 'folders' else 0
    stored_by = {'source': options.source, **{name: getattr(options, name) for name in STORED_BY}}
    return Plan(
        labels, tuple(parts), _shards(options, parts, percents), percents, options.seed, processes, stored_by)


def _shards(options, parts: Sequence[Part], percents: Mapping[str, float]) -> dict[str, int]:
    """How many there are of each split, by what it will about hold."""
    shares = percents | {'train': 100 - sum(percents.values())}
    found = {}
    for part in parts:
        pictures, size = part.pictures, part.source.stored_bytes()
        for split in part.splits:
            share = shares[split] / 100 if part.only_split is None else 1
            found[split] = getattr(options, f'{split}_shards') or _by_size(share * pictures, share * size)
    return {split: found[split] for split in SPLITS if split in found}


def _by_size(pictures: float, size: float) -> int:
    least = LEAST_SHARDS if pictures > FEW_PICTURES else FEW_SHARDS
    return max(least, math.ceil(pictures / SHARD_PICTURES), math.ceil(size / SHARD_BYTES))


def _near(options, sources: dict[str, Source], percents: dict[str, float]) -> groups.Near | None:
    if not options.group_near_duplicates:
        return None
    if not percents:
        raise UsageError('--group_near_duplicates has nothing to do: each split has pictures of its own, and none is '
                         'chosen from the training pictures; leave it out')
    return groups.find(options.group_near_duplicates, sources, options.seed)


def _directories(options) -> dict[str, str]:
    """By split."""
    return {name: directory for name in SPLITS if (directory := getattr(options, f'{name}_directory'))}


def _pictures(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    return _labeled_files(options) if options.labels_csv else _class_folders(options)


def _class_folders(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    listings = {name: folders.list_pictures(directory, f'{name}_directory', options.recursive, not options.no_symlinks)
                for name, directory in _directories(options).items()}
    for listing in listings.values():
        layout.check_pictures(listing)
    labels = _labels(listings, options.labels_file)
    return labels, {name: folders.ClassFolders(listing, labels, _loader(listing.directory, options))
                    for name, listing in listings.items()}


def _labeled_files(options) -> tuple[tuple[str, ...], dict[str, Source]]:
    for name in ('validation_directory', 'test_directory', 'recursive'):
        if getattr(options, name):
            raise UsageError(f'--{name} has nothing to do with --labels_csv: leave it out; the list says where its '
                             'files lie, and in a column split which of them are for what')
    listing = labels_csv.find(options.labels_csv, labels_csv.read(options.labels_csv), options.train_directory)
    labels, loader = labels_csv.classes(listing, options.labels_file), _loader(listing.directory, options)
    for name in ('validation', 'test'):
        if f'{name}_percent' in options.given and name in listing.files:
            raise UsageError(f'{printable(options.labels_csv)} says which pictures are for {name}: leave '
                             f'--{name}_percent out')
    return labels, {name: labels_csv.LabeledFiles(listing, name, labels, loader)
                    for name in SPLITS if name in listing.files}


def _loader(directory: bytes, options) -> folders.FolderLoader:
    return folders.FolderLoader(
        directory, gate.Limits(options.max_bytes, options.max_pixels), options.max_side, options.short_side,
        options.sixteen_bit_max, not options.no_symlinks)


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
    for name, others in (('validation', 'train'), ('test', 'train,validation')):
        if f'{name}_percent' in options.given and name in sources:
            raise UsageError(f'{options.tfds} has a {name} split: leave --{name}_percent out, or name the others alone '
                             f'(--tfds_splits={others})')
    return sources['train'].labels, sources


SOURCES = {'folders': _pictures, 'mnist_csv': _mnist_csv, 'cifar10': _cifar10, 'tfds': _tfds}  # By --source.


def _percents(options, sources: dict[str, Source]) -> dict[str, float]:
    """Of each split that has no source of its own and is not to be empty."""
    validation, test = options.validation_percent, options.test_percent
    asked = {'validation': _enough_to_validate(sources) if validation is None else validation, 'test': test}
    percents = {name: percent for name, percent in asked.items() if percent and name not in sources}
    if sum(percents.values()) >= 100:
        flags = ' and '.join(f'--{name}_percent={percent:g}' for name, percent in percents.items())
        raise UsageError(f'{flags} leave{"s" * (len(percents) == 1)} nothing to train on; give less than 100'
                         + ' together' * (len(percents) > 1))
    return percents


def _enough_to_validate(sources: dict[str, Source]) -> float:
    """The percentage where nobody gave one."""
    return min(AUTOMATIC_VALIDATION_PERCENT, 100 * MOST_VALIDATION / max(sum(sources['train'].per_label), 1))


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
