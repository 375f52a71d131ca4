"""Pictures into folders by their answers, as links or copies: the pictures themselves stay where and as they are.

Nothing is replaced: what stands under a picture's name stays, and the picture gets a second name beside it, made of
where it lies (a link) or of what it holds (a copy). So a second time finds what the first one put there.
"""

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from finetune.console import files
from finetune.console.errors import Error
from finetune.console.terminal import printable, warn

WAYS = ('link', 'copy')  # Not hard links: who edits one edits the picture, and does not see that it is one.
NO_ANSWER = 'no_answer'
FLAG = '--sort_into'
RESERVED = set('/\\:*?"<>|')  # In names of files, by some system.
UNPRINTABLE = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
FOLDER_BYTES, NAME_BYTES = 200, 255  # At most: file systems take 255 bytes.
SUFFIX = 16  # Characters, at most.
REFUSED = {*files.NOT_OFFERED, errno.EPERM}  # Links, by FAT and some network disks.


def folder_names(labels: Iterable[str]) -> dict[str | None, str]:
    """The folder of each label, and under None that of pictures without an answer.

    A label that is no good name is written with _ for what is not; two that would be one on some file system are
    numbered, in the order of the labels.
    """
    found, taken = {None: NO_ANSWER}, {NO_ANSWER}
    for label in dict.fromkeys(labels):
        name, number = _tame(label), 1
        while _folded(name) in taken:
            number += 1
            name = f'{_tame(label)}_{number}'
        taken.add(_folded(name))
        found[label] = name
    return found


def _tame(label: str) -> str:
    shown = ''.join('_' if c in RESERVED or unicodedata.category(c) in UNPRINTABLE else c for c in label)
    return _cut(shown.strip(' .'), FOLDER_BYTES).strip(' .') or '_'


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())


def _cut(text: str, most: int) -> str:
    return os.fsencode(text)[:most].decode(errors='ignore')


def prepare(directory: Path, by: str) -> str:
    """Makes the directory, and says by which way pictures get there: by copies where its file system has no links."""
    files.prepare(directory, 'pictures are sorted into it', FLAG)
    if by == 'copy':
        return by
    trial = directory / f'.{os.getpid()}.tmp'
    try:
        trial.symlink_to(directory)
        trial.unlink()
        return by
    except OSError as error:
        if error.errno not in REFUSED:
            raise
    warn(f'the file system of {printable(directory)} has no links: pictures are sorted into it as copies')
    return 'copy'


def lies_in(path: str, directory: Path) -> bool:
    """Whether a file or folder is in the directory, or is it, by whatever links it is reached."""
    whole = Path(path).absolute()
    return any(Path(os.path.realpath(each)).is_relative_to(os.path.realpath(directory))
               for each in (whole, whole.parent))


def _standing(directory: Path, folders: Iterable[str]) -> dict[str, set[str]]:
    """The pictures that links lead to from these folders, and from which of them."""
    found = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            for place in (directory / folder).iterdir():
                if place.is_symlink():
                    found.setdefault(str(place.readlink()), set()).add(folder)
    return found


def sorter(directory: Path, labels: Iterable[str], by: str) -> Callable[[str, str | None], Iterator[str]]:
    """What puts a picture into the folder of its label, None where it has no answer, and tells what there is to count:
    that it is 'new' or was 'there', and that it stands 'elsewhere' too, by an earlier answer.

    Nothing is done with what is no file, or lies in the directory itself.
    """
    folders = folder_names(labels)
    earlier = _standing(directory, folders.values())

    def put_away(picture: str, label: str | None) -> Iterator[str]:
        if _can_be_read(picture) and not lies_in(picture, directory):
            yield 'new' if put(picture, directory / folders[label], by) else 'there'
            if earlier.get(str(Path(picture).absolute()), set()) - {folders[label]}:
                yield 'elsewhere'

    return put_away


def told(counts: Mapping[str, int], directory: Path, by: str) -> str:
    """What was put into the directory, as a sentence."""
    there = f', {counts["there"]:,} were there before' if counts['there'] else ''
    elsewhere = f'; {counts["elsewhere"]:,} also stand where another answer put them' if counts['elsewhere'] else ''
    return f'Sorted into {printable(directory)}: {counts["new"]:,} new by {by}{there}{elsewhere}'


def _can_be_read(picture: str) -> bool:
    try:
        return Path(picture).is_file() and os.access(picture, os.R_OK)
    except (OSError, ValueError):  # A name that is too long, or holds a NUL.
        return False


def put(picture: str, folder: Path, by: str) -> bool:
    """Links or copies a picture into a folder, and says whether it was missing there. Raises Error."""
    picture = Path(picture).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = _names(picture, by)
        if any(_stands(picture, folder / name, by) for name in names):
            return False
        for name in names:
            with contextlib.suppress(FileExistsError):
                (folder / name).symlink_to(picture) if by == 'link' else _copy(picture, folder / name)
                return True
        raise OSError(errno.EEXIST, f'something else stands there as {" and as ".join(map(printable, names))}')
    except OSError as error:
        raise Error(f'{printable(picture)} cannot be put into {printable(folder)}: {error.strerror or error}. What was '
                    f'sorted stays, and the same command goes on; or name another {FLAG}.') from None


def _names(picture: Path, by: str) -> tuple[str, str]:
    """What a picture may be called in its folder: as it is called, and where that is taken, so that no other is."""
    if by == 'link':
        digest = hashlib.sha256(os.fsencode(picture))
    else:
        with picture.open('rb') as file:
            digest = hashlib.file_digest(file, 'sha256')
    end = f'-{digest.hexdigest()[:8]}{picture.suffix[:SUFFIX]}'
    stem = picture.stem
    while len(os.fsencode(stem + end)) > NAME_BYTES:
        stem = stem[:-1]
    return picture.name, stem + end


def _stands(picture: Path, place: Path, by: str) -> bool:
    if by == 'link':
        return place.is_symlink() and place.readlink() == picture
    return place.is_file() and not place.is_symlink() and filecmp.cmp(picture, place, shallow=False)


def _copy(picture: Path, place: Path) -> None:
    """A whole copy or none; raises FileExistsError where something stands there."""
    temporary = place.with_name(f'.{os.getpid()}.tmp')
    try:
        with picture.open('rb') as source, temporary.open('wb') as copy:
            shutil.copyfileobj(source, copy)
        with contextlib.suppress(OSError):  # Its time is worth keeping, and no more than that.
            shutil.copystat(picture, temporary)
        try:
            place.hardlink_to(temporary)  # Unlike a rename, it replaces nothing.
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            if os.path.lexists(place):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            temporary.rename(place)
    finally:
        temporary.unlink(missing_ok=True)
