"""What a person means by PHOTOS: class folders, the parts of a data set, an archive of either, the files of a list.

    an archive → unpacked → a folder that holds only one is stepped into → parts or class folders → flags of a build
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.building import archives
from finetune.building.sources import folders, labels_csv, layout
from finetune.console.errors import Error, UsageError
from finetune.console.terminal import count, listed, printable, some
from finetune.pictures import gate

URL = re.compile(r'[A-Za-z][A-Za-z0-9+.-]+://')


@dataclass(frozen=True)
class Understood:
    flags: dict[str, str]  # What a build must be told: the directory of each split, the list of labels.
    lines: list[str]  # What was understood, for a person.


def understand(
    path: str | os.PathLike, unpacked: Path, labels: str | None = None, *, recursive: bool = False,
    follow_symlinks: bool = True, max_bytes: int = gate.Limits.max_bytes, flag: str = '--output',
) -> Understood:
    """Looks at names alone, but for an archive, which becomes the folder `unpacked`; `flag` is what chooses that.

    `labels` is a CSV file with the columns file and label. Raises Error with the way out.
    """
    directory, lines = _directory(path, unpacked, max_bytes, flag)
    if labels:
        return _listed(directory, labels, lines)
    listing = _listing(directory, False, follow_symlinks)
    while not (parts := layout.folder_of_each(listing)) and (folder := layout.wrapped(listing)):
        listing = _listing(listing.directory_of(folder), False, follow_symlinks)
    if 'train' in parts:
        lines += _about_parts(listing, parts)
        found = {split: listing.directory_of(folder) for split, folder in parts.items()}
    else:
        layout.check_classes(listing)
        found = {'train': listing.directory}
    for split, folder in found.items():
        listing = _listing(folder, recursive, follow_symlinks)
        layout.check_pictures(listing)
        lines.append(_about_classes(listing, split if 'train' in parts else ''))
    return Understood({f'{split}_directory': os.fsdecode(folder) for split, folder in found.items()}, lines)


def _listing(directory: bytes, recursive: bool, follow_symlinks: bool) -> folders.Listing:
    return folders.list_pictures(directory, '', recursive, follow_symlinks)


def _directory(path: str | os.PathLike, unpacked: Path, max_bytes: int, flag: str) -> tuple[bytes, list[str]]:
    """The folder to look at, and what there is to say of how it came about."""
    shown = printable(path)
    if URL.match(os.fsdecode(path)):
        raise UsageError(f'{shown} is an address, and nothing is fetched from there: download it, and name the folder '
                         'or the archive.')
    if Path(path).is_dir():
        return os.fsencode(path), []
    if not Path(path).exists():
        raise Error(f'{shown}: there is no such folder or archive. {folders.LAYOUT}')
    if not Path(path).is_file() or not (kind := archives.kind_of(Path(path))):
        raise Error(f'{shown} is no folder and no archive (zip or tar). {_instead(path)}')
    done = archives.unpack(Path(path), kind, unpacked, flag, max_bytes)
    lines = [f'{shown}: a {kind} archive of {count(done.files, "file")}, unpacked into {printable(unpacked)}']
    return os.fsencode(unpacked), lines + [f'  left out of it: {remark}' for remark in done.remarks()]


def _instead(path: str | os.PathLike) -> str:
    suffix = Path(path).suffix.lower()
    if suffix == '.csv':
        return f'Name the folder of the pictures, and add --labels_csv={printable(path)}'
    if os.fsencode(suffix) in folders.SUFFIXES:
        return f'Name the folder that holds the class folders. {folders.LAYOUT}'
    return folders.LAYOUT


def _listed(directory: bytes, labels: str, lines: list[str]) -> Understood:
    inside = [_listing(directory, False, True)]
    while folder := layout.wrapped(inside[-1]):
        inside.append(_listing(inside[-1].directory_of(folder), False, True))
    found = labels_csv.find(labels, labels_csv.read(labels), *(listing.directory for listing in inside))
    lines = [*lines, f'{printable(labels)} lists files in {printable(found.directory)}']
    for split, files in found.files.items():
        lines.append(f'  {split}: {count(len(files), "picture")} of {_classes(found.labels(split))}')
    if found.skipped:
        lines.append(f'  left out: {count(len(found.skipped), "file")}, for example '
                     f'{printable(found.skipped[0].path)}: {printable(found.skipped[0].detail)}')
    return Understood({'train_directory': os.fsdecode(found.directory), 'labels_csv': labels}, lines)


def _about_parts(listing: folders.Listing, parts: dict[str, bytes]) -> Iterator[str]:
    names = [os.fsdecode(folder) + '/' for folder in parts.values()]
    yield f'{printable(listing.directory)} holds {listed(names)}'
    for folder, why in layout.left_out(listing):
        yield f'  left out: {printable(folder)}/: {why}'
    if listing.stray:
        yield f'  left out: {count(listing.stray, "picture")} beside these folders'


def _about_classes(listing: folders.Listing, split: str) -> str:
    pictures = sum(map(len, listing.pictures.values()))
    where = f'  {split}' if split else f'{printable(listing.directory)}'
    return f'{where}: {count(pictures, "picture")} of {_classes(listing.labels())}'


def _classes(labels: set[str]) -> str:
    """'5 classes: daisy, …'"""
    return f'{len(labels)} class{"es" * (len(labels) != 1)}: {some(sorted(labels))}'
