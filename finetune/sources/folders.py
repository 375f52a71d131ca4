"""Class folders: DIRECTORY/CLASS/PICTURE. Walked as bytes and never globbed, so that any name is only a name."""

import bisect
import collections
import hashlib
import itertools
import os
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from finetune import gate
from finetune.errors import Error
from finetune.sources import LabeledImage, Loaded
from finetune.sources.labels import label_of
from finetune.terminal import printable

SUFFIXES = {  # Which names are taken for pictures, and what such a name promises; the content decides.
    b'.jpg': 'JPEG', b'.jpeg': 'JPEG', b'.jpe': 'JPEG', b'.jfif': 'JPEG', b'.png': 'PNG', b'.apng': 'PNG',
    b'.gif': 'GIF', b'.webp': 'WEBP', b'.bmp': 'BMP', b'.dib': 'BMP',
} | dict.fromkeys(  # Not read here, but never passed over in silence.
    (b'.tif', b'.tiff', b'.heic', b'.heif', b'.avif', b'.jp2', b'.jxl', b'.ico', b'.svg', b'.pdf', b'.psd', b'.eps'),
)
SYSTEM_FOLDERS = {b'__MACOSX', b'@eaDir', b'lost+found', b'$RECYCLE.BIN', b'System Volume Information'}
SIZES_ASKED = 2000
LAYOUT = 'The layout is DIRECTORY/CLASS/PICTURE.jpg, one folder a class.'


class Skip(NamedTuple):
    """One file or folder that is not in the records."""

    path: bytes
    reason: str
    detail: str


@dataclass
class Listing:
    """What one directory of class folders holds, before any picture is read."""

    directory: bytes
    pictures: dict[bytes, list[bytes]]  # By class folder: names below it, sorted.
    links: set[bytes] = field(default_factory=set)  # FOLDER/NAME of pictures that are symbolic links.
    skipped: list[Skip] = field(default_factory=list)
    ignored: collections.Counter = field(default_factory=collections.Counter)  # Files that claim to be no picture.
    stray: int = 0  # Pictures beside the class folders.

    def count(self) -> int:
        return sum(map(len, self.pictures.values()))


def list_pictures(directory: str | os.PathLike, flag: str, recursive: bool = False) -> Listing:
    """Walks the class folders. Raises Error where the directory is not of that layout; `flag` is what named it."""
    root = os.fsencode(directory)
    listing = Listing(root, {})
    for entry in _entries(root, flag):
        if not _is_folder(entry):
            listing.stray += _suffix(entry.name) in SUFFIXES
        elif entry.name.startswith(b'.'):
            listing.skipped.append(Skip(entry.path, 'hidden_folder', 'a name with a leading dot is no class'))
        elif entry.name in SYSTEM_FOLDERS:
            listing.skipped.append(Skip(entry.path, 'system_folder', 'a folder that the system or a tool leaves behind'))
        else:
            listing.pictures[entry.name] = []
            _walk(listing, entry.name, b'', recursive)
    _check_layout(listing, flag)
    return listing


class ClassFolders:
    """The pictures of one listing, with the label of each folder."""

    def __init__(self, listing: Listing, labels: Sequence[str], loader: 'FolderLoader'):
        self.loader = loader
        self._links = listing.links
        number = {label: index for index, label in enumerate(labels)}
        self._folders = [folder for folder in sorted(listing.pictures) if label_of(folder) in number]
        self._labels = [number[label_of(folder)] for folder in self._folders]
        self._names = [listing.pictures[folder] for folder in self._folders]
        self._ends = list(itertools.accumulate(map(len, self._names)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def jpeg_bytes(self) -> int:
        """About how many bytes the pictures named as JPEGs have: exact up to SIZES_ASKED files, then from a sample."""
        step = -(-len(self) // SIZES_ASKED) or 1
        paths = [image.key for image in itertools.islice(self.images(0), 0, None, step)]
        sizes = (_size(os.path.join(self.loader.directory, path)) for path in paths if SUFFIXES[_suffix(path)] == 'JPEG')
        return step * sum(sizes)

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """In a shuffled order: the same on every file system, as it begins from sorted names."""
        order = array('L', range(len(self)))
        random.Random(seed).shuffle(order)
        for index in order:
            which = bisect.bisect_right(self._ends, index)
            path = self._folders[which] + b'/' + self._names[which][index - self._ends[which]]
            yield LabeledImage(self._labels[which], path, path, ('symlink',) if path in self._links else ())


@dataclass(frozen=True)
class FolderLoader:
    directory: bytes
    limits: gate.Limits = gate.Limits()
    max_side: int = 0
    short_side: int = 0
    follow_symlinks: bool = True
    format = 'JPEG'

    def load(self, key: bytes) -> Loaded:
        data = gate.read(os.path.join(self.directory, key), self.limits, self.follow_symlinks)
        picture = gate.admit(data, self.limits, self.max_side, self.short_side)
        notes = picture.notes if gate.sniff(data) == SUFFIXES[_suffix(key)] else (*picture.notes, 'suffix_mismatch')
        return Loaded(picture.jpeg, picture.height, picture.width, hashlib.sha256(data).digest(), notes)


def _entries(path: bytes, flag: str = '') -> list[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise Error(f'--{flag}={printable(path)}: {error.strerror}. {LAYOUT}') from None


def _walk(listing: Listing, folder: bytes, below: bytes, recursive: bool) -> None:
    """Adds the pictures of one folder; folders in it are read only when asked, and linked folders never."""
    try:
        entries = _entries(os.path.join(listing.directory, folder, below))
    except Error as error:
        listing.skipped.append(Skip(os.path.join(listing.directory, folder, below), 'unreadable', str(error)))
        return
    for entry in entries:
        name = os.path.join(below, entry.name)
        if entry.name.startswith(b'.'):
            listing.ignored['hidden_file'] += 1
        elif _is_folder(entry):
            if recursive and not entry.is_symlink():
                _walk(listing, folder, name, recursive)
            else:
                listing.skipped.append(_nested(entry))
        elif _suffix(entry.name) not in SUFFIXES:
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


def _nested(entry: os.DirEntry) -> Skip:
    if _suffix(entry.name) in SUFFIXES:
        return Skip(entry.path, 'not_a_regular_file', 'a folder')
    if entry.is_symlink():
        return Skip(entry.path, 'nested_folder', 'a link to a folder is not followed')
    files = sum(len(names) for _, _, names in os.walk(entry.path))
    return Skip(entry.path, 'nested_folder', f'{files} files in it were not read (--recursive reads them)')


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # It will be rejected with a reason when it is read.
        return 0


def _suffix(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()


def _check_layout(listing: Listing, flag: str) -> None:
    if listing.count():
        return
    shown = f'--{flag}={printable(listing.directory)}'
    if listing.stray:
        raise Error(f'{shown} holds {listing.stray} pictures but no class folders. {LAYOUT}')
    inner = sorted({os.path.basename(skip.path) for skip in listing.skipped if skip.reason == 'nested_folder'})
    if inner:
        raise Error(f'{shown}: its folders hold only folders. {_likely_path(listing, inner, flag)} (--recursive reads '
                    'nested folders as parts of their class.)')
    raise Error(f'{shown} holds no pictures. {LAYOUT}')


def _likely_path(listing: Listing, inner: list[bytes], flag: str) -> str:
    """A wrapped set is given one level too high: train and validation look like classes."""
    folders = {folder.lower(): os.path.join(listing.directory, folder) for folder in listing.pictures}
    train = folders.get(b'train') or folders.get(b'training') or next(iter(folders.values()))
    validation = next((folders[name] for name in (b'validation', b'val', b'valid', b'test') if name in folders), None)
    text = f'Did you mean --{flag}={printable(train)}'
    if validation and validation != train and flag == 'train_directory':
        text += f' --validation_directory={printable(validation)}'
    return text + '?'

