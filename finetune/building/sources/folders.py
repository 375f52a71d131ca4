"""Class folders: DIRECTORY/CLASS/PICTURE. Walked as bytes and never globbed, so that any name is only a name."""

# A Path cannot hold bytes.
# ruff: noqa: PTH116, PTH118, PTH122

import bisect
import collections
import itertools
import os
import random
import unicodedata
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from finetune.building.sources import LabeledImage, Loaded, Skip
from finetune.building.sources.labels import label_of
from finetune.console.errors import Error
from finetune.console.terminal import printable, some
from finetune.pictures import gate

NOT_READ_HERE = (
    b'.tif', b'.tiff', b'.heic', b'.heif', b'.avif', b'.jp2', b'.jxl', b'.ico', b'.svg', b'.pdf', b'.psd', b'.eps',
)
SUFFIXES = {  # The names that are taken for pictures, and what such a name promises; the content decides.
    b'.jpg': 'JPEG', b'.jpeg': 'JPEG', b'.jpe': 'JPEG', b'.jfif': 'JPEG', b'.png': 'PNG', b'.apng': 'PNG',
    b'.gif': 'GIF', b'.webp': 'WEBP', b'.bmp': 'BMP', b'.dib': 'BMP',
    **dict.fromkeys(NOT_READ_HERE),  # Rejected with a reason, never passed over in silence.
}
SYSTEM_FOLDERS = {b'__MACOSX', b'@eaDir', b'lost+found', b'$RECYCLE.BIN', b'System Volume Information'}
LAYOUT = 'The layout is DIRECTORY/CLASS/PICTURE.jpg, one folder a class.'
NEARLY = 'in case, in blanks or in Unicode normal form'
SIZES_ASKED = 2000


@dataclass
class Listing:
    """What one directory of class folders holds, before any picture is read."""

    directory: bytes
    flag: str  # What named the directory.
    pictures: dict[bytes, list[bytes]] = field(default_factory=dict)  # By class folder: names below it, sorted.
    links: set[bytes] = field(default_factory=set)  # FOLDER/NAME of pictures that are symbolic links.
    skipped: list[Skip] = field(default_factory=list)
    ignored: collections.Counter = field(default_factory=collections.Counter)
    stray: int = 0  # Pictures beside the class folders.

    def labels(self) -> set[str]:
        return {label_of(folder) for folder in self.pictures}


def list_pictures(
    directory: str | os.PathLike, flag: str, recursive: bool = False, follow_symlinks: bool = True
) -> Listing:
    """Walks the class folders. Raises Error where the directory is not of that layout."""
    listing = Listing(os.fsencode(directory), flag)
    try:
        with os.scandir(listing.directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise Error(f'--{flag}={printable(directory)}: {error.strerror}. {LAYOUT}') from None
    for entry in entries:
        is_folder = _is_folder(entry)
        if is_folder and (reason := _why_ignored(entry.name, is_folder)):
            listing.skipped.append(Skip(entry.path, reason, 'a folder that the system or a tool leaves behind'))
        elif is_folder and entry.is_symlink() and not follow_symlinks:
            listing.skipped.append(Skip(entry.path, 'symlink', 'a symbolic link (--no_symlinks)'))
        elif is_folder:
            listing.pictures[entry.name] = []
            _walk(listing, entry.name, b'', recursive)
            listing.pictures[entry.name].sort()
        else:
            listing.stray += _suffix(entry.name) in SUFFIXES and not entry.name.startswith(b'.')
    _check_layout(listing)
    return listing


class ClassFolders:
    """The pictures of one listing, with the label of each folder. A `Source`."""

    def __init__(self, listing: Listing, labels: Sequence[str], loader: 'FolderLoader'):
        self.where = printable(listing.directory)
        self.loader = loader
        self.skipped, self.ignored = listing.skipped, listing.ignored
        self._listing, self._all_labels = listing, labels
        number = {label: index for index, label in enumerate(labels)}
        self._folders = [folder for folder in sorted(listing.pictures) if label_of(folder) in number]
        self._labels = [number[label_of(folder)] for folder in self._folders]
        self._names = [listing.pictures[folder] for folder in self._folders]
        self._ends = list(itertools.accumulate(map(len, self._names)))
        self.per_label = [0] * len(labels)
        for label, names in zip(self._labels, self._names, strict=True):
            self.per_label[label] += len(names)

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """In a shuffled order: the same on every file system, as it begins from sorted names."""
        order = array('L', range(sum(self.per_label)))
        random.Random(seed).shuffle(order)
        for index in order:
            which = bisect.bisect_right(self._ends, index)
            path = self._folders[which] + b'/' + self._names[which][index - self._ends[which]]
            notes = ('symlink',) if path in self._listing.links else ()
            yield LabeledImage(self._labels[which], path, path, notes)

    def path(self, image: LabeledImage) -> bytes:
        return os.path.join(self._listing.directory, image.filename)

    def stored_bytes(self) -> int:
        """Of the pictures named as JPEGs, which keep their bytes: exact for a few files, from a sample for many."""
        if self.loader.max_side or self.loader.short_side:
            return 0
        step = -(-sum(self.per_label) // SIZES_ASKED) or 1
        paths = (b'/'.join((self._listing.directory, folder, name))
                 for folder, names in zip(self._folders, self._names, strict=True) for name in names)
        sizes = [_size(path) for path in itertools.islice(paths, 0, None, step) if SUFFIXES[_suffix(path)] == 'JPEG']
        return step * sum(size for size in sizes if size <= self.loader.limits.max_bytes)  # Larger ones are rejected.

    def remarks(self) -> Iterator[str]:
        found, known = self._listing.labels(), set(self._all_labels)
        missing = [label for label in self._all_labels[1:] if label not in found]
        if missing:
            yield f'{self.where} has no folder for {some(missing)}.'
        unlisted = {folder: names for folder, names in self._listing.pictures.items() if label_of(folder) not in known}
        if unlisted:
            pictures = sum(map(len, unlisted.values()))
            yield (f'{self.where}: {some(sorted(map(label_of, unlisted)))} not in the labels file: {pictures} pictures '
                   'are left out.')
        for folder, label in nearly(found, self._all_labels[1:]):
            yield f'{self.where}: folder {folder!a} is nearly class {label!a}; they differ {NEARLY}.'
        if self._listing.stray:
            yield f'{self.where}: {self._listing.stray} pictures beside the class folders are left out.'


def nearly(folders: Collection[str], classes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Folders that are no class, each with the class without a folder that looks like it.

    To be shown as escapes, which tell two normal forms of one letter apart.
    """
    missing = {folded(label): label for label in classes if label not in folders}
    for folder in sorted(set(folders).difference(classes)):
        if label := missing.get(folded(folder)):
            yield folder, label


def folded(label: str) -> str:
    """Equal for labels that look alike, or are one folder to some system."""
    return unicodedata.normalize('NFC', ' '.join(label.split())).casefold()


@dataclass(frozen=True)
class FolderLoader:
    """A `Loader` whose keys are FOLDER/NAME."""

    directory: bytes
    limits: gate.Limits = gate.DEFAULT_LIMITS
    max_side: int = 0
    short_side: int = 0
    sixteen_bit_max: int = gate.SIXTEEN_BIT_MAX
    follow_symlinks: bool = True
    format = 'JPEG'

    def load(self, key: bytes) -> Loaded:
        data = gate.read(os.path.join(self.directory, key), self.limits, self.follow_symlinks)
        picture = gate.admit(
            data, self.limits, self.max_side, self.short_side, self.format, self.sixteen_bit_max)
        as_named = gate.sniff(data) == SUFFIXES[_suffix(key)]
        notes = picture.notes if as_named else (*picture.notes, 'suffix_mismatch')
        return Loaded(picture.encoded, picture.height, picture.width, picture.digest, notes)


# ---- walking ----


def _why_ignored(name: bytes, is_folder: bool) -> str | None:
    """The reason to pass over what nobody made as a class or a picture, at any depth."""
    if name.startswith(b'.'):
        return 'hidden_folder' if is_folder else 'hidden_file'
    if name in SYSTEM_FOLDERS and is_folder:
        return 'system_folder'
    return None


def _walk(listing: Listing, folder: bytes, below: bytes, recursive: bool) -> None:
    """Adds the pictures of one folder; folders in it are read only when asked, and linked folders never."""
    here = os.path.join(listing.directory, folder, below).rstrip(b'/')
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                _list(listing, entry, folder, os.path.join(below, entry.name), recursive)
    except OSError as error:
        listing.skipped.append(Skip(here, 'unreadable', error.strerror))


def _list(listing: Listing, entry: os.DirEntry, folder: bytes, name: bytes, recursive: bool) -> None:
    is_folder = _is_folder(entry)  # Once: of a link, it has to be asked of the disk.
    if reason := _why_ignored(entry.name, is_folder):
        listing.ignored[reason] += 1
    elif is_folder and recursive and not entry.is_symlink():
        _walk(listing, folder, name, recursive)
    elif is_folder:
        listing.skipped.append(Skip(entry.path, *_why_not_read(entry)))
    elif _suffix(name) not in SUFFIXES:
        listing.ignored['not_an_image_suffix'] += 1
    else:
        listing.pictures[folder].append(name)
        if entry.is_symlink():
            listing.links.add(folder + b'/' + name)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _why_not_read(folder: os.DirEntry) -> tuple[str, str]:
    if _suffix(folder.name) in SUFFIXES:
        return 'not_a_regular_file', 'a folder'
    if folder.is_symlink():
        return 'nested_folder', 'a link to a folder is not followed'
    files = sum(len(names) for _, _, names in os.walk(folder.path))
    return 'nested_folder', f'{files} files in it were not read (--recursive reads them)'


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # It will be rejected with a reason when it is read.
        return 0


def _suffix(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()


# ---- a directory of another layout ----


def _check_layout(listing: Listing) -> None:
    if any(listing.pictures.values()):
        return
    shown = f'--{listing.flag}={printable(listing.directory)}'
    for skip in listing.skipped:
        if skip.reason == 'unreadable':
            raise Error(f'{shown} has no picture that can be found: {printable(skip.path)}: {skip.detail}. Get the '
                        'right to read the class folders.')
    if listing.stray:
        raise Error(f'{shown} holds {listing.stray} pictures but no class folders. {LAYOUT}')
    if any(skip.reason == 'nested_folder' for skip in listing.skipped):
        raise Error(f'{shown}: its folders hold only folders. Did you mean {_likely_flags(listing)}?')
    raise Error(f'{shown} holds no pictures. {LAYOUT}')


def _likely_flags(listing: Listing) -> str:
    """For a set given one level too high, whose train and validation folders look like classes."""
    folders = {folder.lower(): os.path.join(listing.directory, folder) for folder in listing.pictures}
    train = folders.get(b'train') or folders.get(b'training') or next(iter(folders.values()))
    flags = f'--{listing.flag}={printable(train)}'
    names = (name for name in (b'validation', b'val', b'valid', b'test') if name in folders)
    validation = folders.get(next(names, None))
    if validation and listing.flag == 'train_directory':
        flags += f' --validation_directory={printable(validation)}'
    return flags
