"""Class folders: DIRECTORY/CLASS/PICTURE. Walked as bytes and never globbed, so that any name is only a name."""

# A Path cannot hold bytes.
# ruff: noqa: PTH116, PTH118, PTH122

import bisect
import collections
import errno
import itertools
import os
import random
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from finetune.building.sources import LabeledImage, Loaded, Skip
from finetune.building.sources.labels import label_of
from finetune.console.errors import Error
from finetune.console.terminal import count, printable, some
from finetune.pictures import disk, formats, gate

NOT_READ_HERE = (b'.jxl', b'.ico', b'.svg', b'.pdf', b'.psd', b'.eps')
SUFFIXES = {  # The names that are taken for pictures, and what such a name promises; the content decides.
    b'.jpg': 'JPEG', b'.jpeg': 'JPEG', b'.jpe': 'JPEG', b'.jfif': 'JPEG', b'.png': 'PNG', b'.apng': 'PNG',
    b'.gif': 'GIF', b'.webp': 'WEBP', b'.bmp': 'BMP', b'.dib': 'BMP', b'.avif': 'AVIF', b'.heic': 'HEIF',
    b'.heif': 'HEIF', b'.hif': 'HEIF', b'.tif': 'TIFF', b'.tiff': 'TIFF',
    **dict.fromkeys((b'.jp2', b'.j2k', b'.j2c', b'.jpc', b'.jpx', b'.jpf'), 'JPEG2000'),
    **dict.fromkeys((b'.ppm', b'.pgm', b'.pbm', b'.pnm'), 'PPM'),
    **dict.fromkeys(NOT_READ_HERE),  # Rejected with a reason, never passed over in silence.
}
RAW_FILES = (
    b'.dng', b'.cr2', b'.cr3', b'.crw', b'.nef', b'.nrw', b'.arw', b'.sr2', b'.srf', b'.orf', b'.rw2', b'.raf', b'.pef',
    b'.srw', b'.x3f', b'.3fr', b'.iiq', b'.erf', b'.mrw', b'.kdc', b'.dcr',
)
NEVER_READ = {  # Pictures that only the name tells: a raw file begins as the TIFF of its thumbnail, a Targa anyhow.
    **dict.fromkeys(RAW_FILES, "a camera's raw file"),
    b'.tga': 'a Targa picture', b'.exr': 'an OpenEXR picture', b'.xcf': 'a GIMP picture', b'.dcm': 'a DICOM file',
}
BROKEN_LINKS = 'symlink_dangling', 'symlink_loop'
COUNTED = {  # Inside classes; never listed.
    'hidden_file', 'hidden_folder', 'system_folder', 'not_an_image_suffix', 'symlink_again',
}
SYSTEM_FOLDERS = {b'__MACOSX', b'@eaDir', b'lost+found', b'$RECYCLE.BIN', b'System Volume Information'}
LAYOUT = 'The layout is DIRECTORY/CLASS/PICTURE.jpg, one folder a class.'
NEARLY = 'in case, in blanks or in Unicode normal form'
SIZES_ASKED = 2000
SUFFIXES_SHOWN = 5


class Found(NamedTuple):
    """What a walk came by: a picture, or, with a reason, what is not read."""

    path: bytes
    reason: str = ''
    detail: str = ''
    is_link: bool = False


@dataclass
class Others:
    """Files whose names claim no picture, by suffix, with an example of each."""

    counts: collections.Counter = field(default_factory=collections.Counter)
    examples: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, path: bytes) -> None:
        suffix = _suffix(path)
        self.counts[suffix] += 1
        self.examples.setdefault(suffix, path)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """'24 files named .xyz (for example cat/1.xyz), 1 file without a suffix (for example cat/a)'"""
        shown = [f'{count(number, "file")} {f"named {printable(suffix)}" if suffix else "without a suffix"} '
                 f'(for example {printable(self.examples[suffix])})'
                 for suffix, number in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))]
        more = len(shown) - SUFFIXES_SHOWN
        return ', '.join(shown[:SUFFIXES_SHOWN]) + (f' and {more} more suffixes' if more > 0 else '')


@dataclass
class Listing:
    """What one directory of class folders holds, before any picture is read."""

    directory: bytes
    flag: str  # What named the directory; '' where it was named without one.
    pictures: dict[bytes, list[bytes]] = field(default_factory=dict)  # By class folder: names below it, sorted.
    links: set[bytes] = field(default_factory=set)  # FOLDER/NAME of pictures that are symbolic links.
    skipped: list[Skip] = field(default_factory=list)
    ignored: collections.Counter = field(default_factory=collections.Counter)
    others: Others = field(default_factory=Others)  # In the class folders.
    beside: Others = field(default_factory=Others)  # Beside them.
    stray: int = 0  # Pictures beside the class folders.

    def add(self, folder: bytes, found: Found) -> None:
        """Files what was found in a class folder."""
        if not found.reason:
            name = found.path[len(self.directory_of(folder)) + 1:]
            self.pictures[folder].append(name)
            if found.is_link:
                self.links.add(folder + b'/' + name)
        elif found.reason not in COUNTED:
            self.skipped.append(Skip(found.path, found.reason, found.detail))
        else:
            self.ignored[found.reason] += 1
            if found.reason == 'not_an_image_suffix':
                self.others.add(found.path)

    def add_beside(self, found: Found) -> None:
        """Files what was found beside the class folders."""
        if found.reason in ('', 'unsupported_format'):
            self.stray += 1
        elif found.reason == 'not_an_image_suffix':
            self.beside.add(found.path)
        else:
            self.skipped.append(Skip(found.path, found.reason, found.detail))

    def directory_of(self, folder: bytes) -> bytes:
        return os.path.join(self.directory, folder)

    def labels(self) -> set[str]:
        return {label_of(folder) for folder in self.pictures}


def list_pictures(
    directory: str | os.PathLike, flag: str, recursive: bool = False, follow_symlinks: bool = True
) -> Listing:
    """Walks the class folders. Raises Error where there is no such directory."""
    listing = Listing(os.fsencode(directory), flag)
    try:
        entries = _entries(listing.directory)
    except OSError as error:
        named = f'--{flag}=' if flag else ''
        raise Error(f'{named}{printable(directory)}: {error.strerror}. {LAYOUT}') from None
    above = (os.path.realpath(listing.directory),)
    for entry in entries:
        is_folder = _is_folder(entry)
        if not is_folder:
            if not entry.name.startswith(b'.'):
                listing.add_beside(_judged(entry))
        elif reason := _why_ignored(entry.name, is_folder):
            listing.skipped.append(Skip(entry.path, reason, 'a folder that the system or a tool leaves behind'))
        elif why := _why_not_followed(entry, above, follow_symlinks):
            listing.skipped.append(Skip(entry.path, *why))
        else:
            listing.pictures[entry.name] = []
            for found in walk(entry.path, recursive, follow_symlinks, above):
                listing.add(entry.name, found)
            listing.pictures[entry.name].sort()
    return listing


def walk(
    folder: bytes, recursive: bool = True, follow_symlinks: bool = True, above: tuple[bytes, ...] = ()
) -> Iterator[Found]:
    """What lies in a folder and, when asked, below it, in the order of names; linked folders are read as others are.

    `above`: the real paths of the folders on the way to it. A link to one of them, or above it, is not followed; nor
    is one to a folder that was read before: between a few folders full of links to each other there are millions of
    ways.
    """
    levels, read = [], set()  # No recursion: folders lie deeper in each other than calls may.

    def enter(folder: bytes, above: tuple[bytes, ...], real: bytes) -> Iterator[Found]:
        try:
            entries = _entries(folder)
        except OSError as error:
            yield Found(folder, 'unreadable', error.strerror)
            return
        read.add(real)
        levels.append((iter(entries), (*above, real)))

    yield from enter(folder, above, os.path.realpath(folder))
    while levels:
        entries, above = levels[-1]
        if not (entry := next(entries, None)):
            levels.pop()
            continue
        is_folder = _is_folder(entry)  # Once: of a link, it has to be asked of the disk.
        if reason := _why_ignored(entry.name, is_folder):
            yield Found(entry.path, reason)
        elif not is_folder:
            yield _judged(entry)
        elif not recursive:
            yield Found(entry.path, *_why_not_read(entry))
        elif why := _why_not_followed(entry, above, follow_symlinks, read):
            yield Found(entry.path, *why)
        else:
            # Only of a link it is asked: the system walks every path from its beginning.
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            yield from enter(entry.path, above, real)


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
        paths = (b'/'.join((self._listing.directory, folder, name))
                 for folder, names in zip(self._folders, self._names, strict=True) for name in names)
        return stored_bytes(paths, sum(self.per_label), self.loader)

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
        broken = [skip.path for skip in self._listing.skipped if skip.reason in BROKEN_LINKS]
        if broken:
            yield (f'{self.where}: {count(len(broken), "link")} to nothing, or to where they lie themselves: '
                   f'{some(broken)}. No class and no picture comes of them.')
        if self._listing.others:
            yield f'{self.where}: passed over, as their names claim no picture: {self._listing.others}.'
        if self._listing.stray:
            yield f'{self.where}: {self._listing.stray} pictures beside the class folders are left out.'


def stored_bytes(paths: Iterable[bytes], pictures: int, loader: 'FolderLoader') -> int:
    """About how many bytes the records of these files will surely take: see `ClassFolders.stored_bytes`."""
    if loader.max_side or loader.short_side:
        return 0
    step = -(-pictures // SIZES_ASKED) or 1
    sizes = [_size(path) for path in itertools.islice(paths, 0, None, step) if SUFFIXES.get(_suffix(path)) == 'JPEG']
    return step * sum(size for size in sizes if size <= loader.limits.max_bytes)  # Larger ones are rejected.


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
    """A `Loader` whose keys are paths below the directory; FOLDER/NAME of class folders."""

    directory: bytes
    limits: gate.Limits = gate.DEFAULT_LIMITS
    max_side: int = 0
    short_side: int = 0
    sixteen_bit_max: int = gate.SIXTEEN_BIT_MAX
    follow_symlinks: bool = True
    format = 'JPEG'

    def load(self, key: bytes) -> Loaded:
        data = disk.read(os.path.join(self.directory, key), self.limits, self.follow_symlinks)
        picture = gate.admit(
            data, self.limits, self.max_side, self.short_side, self.format, self.sixteen_bit_max)
        found = formats.sniff(data)
        as_named = found == SUFFIXES.get(_suffix(key), found)  # A name that promises nothing breaks no promise.
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


def _entries(folder: bytes) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _judged(entry: os.DirEntry) -> Found:
    """A file, by its name. A link to nothing that is named as no picture may have been one to a folder of them."""
    suffix = _suffix(entry.name)
    if suffix in SUFFIXES:
        return Found(entry.path, is_link=entry.is_symlink())
    if entry.is_symlink() and (why := _why_broken(entry.path)):
        return Found(entry.path, *why)
    return Found(entry.path, *why_unreadable(entry.name))


def why_unreadable(name: bytes) -> tuple[str, str]:
    """The reason and the detail for a file whose suffix is not in SUFFIXES."""
    kind = NEVER_READ.get(_suffix(name))
    if kind:
        return 'unsupported_format', f'{kind} is not read here; convert it to JPEG or PNG'
    return 'not_an_image_suffix', ''


def _why_broken(link: bytes) -> tuple[str, str] | None:
    try:
        os.stat(link)
    except FileNotFoundError:
        return 'symlink_dangling', 'a link to nothing'
    except OSError as error:
        return ('symlink_loop', 'a link that leads to itself') if error.errno == errno.ELOOP else \
            ('unreadable', error.strerror)
    return None


def _why_not_followed(
    folder: os.DirEntry, above: Sequence[bytes], follow_symlinks: bool, read: Collection[bytes] = ()
) -> tuple[str, str] | None:
    if not folder.is_symlink():
        return None
    target = os.path.realpath(folder.path)
    if any(os.path.commonpath((target, path)) == target for path in above):
        return 'symlink_loop', 'a link to a folder that it lies in'
    if not follow_symlinks:
        return 'symlink', 'a symbolic link (--no_symlinks)'
    return ('symlink_again', 'a link to a folder that was read before') if target in read else None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _why_not_read(folder: os.DirEntry) -> tuple[str, str]:
    if _suffix(folder.name) in SUFFIXES:
        return 'not_a_regular_file', 'a folder'
    if folder.is_symlink():  # Of what may be the whole disk.
        return 'nested_folder', 'a link to a folder was not read (--recursive reads it)'
    pictures = sum(not found.reason for found in walk(folder.path, follow_symlinks=False))
    return 'nested_folder', f'{count(pictures, "picture")} in it not read (--recursive reads them)'


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # It will be rejected with a reason when it is read.
        return 0


def _suffix(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()
