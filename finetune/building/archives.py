"""A zip or tar archive becomes a folder: nothing of it lies elsewhere, nothing grows without bound.

It is told by its content, and unpacked whole or not at all. Only folders and regular files are made, in a private
folder that nobody else writes to, so that no link can lead a later file out of it. Names are bytes as they stand in the
archive. What is left out is counted.
"""

# A Path cannot hold bytes.
# ruff: noqa: PTH103, PTH118

import bz2
import collections
import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from finetune.building import staging
from finetune.console import signals
from finetune.console.errors import Error
from finetune.console.terminal import Progress, count, printable
from finetune.pictures import gate

NOTE = '.archive.json'  # Hidden, as nothing beside class folders that is hidden is looked at.
VERSION = 1  # Of the rules below: another one unpacks anew.
ZIP = (b'PK\x03\x04', b'PK\x05\x06')  # The second one of an archive of nothing.
COMPRESSED = {  # Tars, by their first bytes.
    b'\x1f\x8b': gzip.open, b'\xfd7zXZ\0': lzma.open,
    **{b'BZh%d1AY&SY' % level: bz2.open for level in range(1, 10)},
}
BLOCK = 512  # Bytes, of a tar.
CHUNK = 1 << 20
LONGEST_HEADER = 8 << 20  # Bytes that a tar may want to be read at once: its names, beside data in chunks.
MOST_ENTRIES = 2_000_000
MOST_DEEP = 32  # Folders in each other.
MOST_TIMES_LARGER = 100  # Than the archive; pictures hardly shrink. Below FREELY_BYTES it does not matter.
FREELY_BYTES = 1 << 30
LEFT_OUT = {  # By reason, what is said of the files.
    'outside': 'whose names lead out of the folder',
    'link': 'which are links',
    'special': 'which are no regular files',
    'too_big': 'larger than {max_bytes:,} bytes (--max_bytes)',
    'again': 'of a name that came before',
    'bad_name': 'whose names no folder can hold',
    'coding': 'compressed in a way that is not read here',
    'system_file': 'which macOS puts beside others',
}
ENCRYPTED, IN_UTF_8 = 0x1, 0x800  # Flags of an entry of a zip.
BAD_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}  # This file system has no such names.
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error,
          RecursionError, NotImplementedError, OverflowError)


@dataclass(frozen=True)
class Unpacked:
    """What became of an archive."""

    kind: str  # 'zip' or 'tar'.
    files: int  # Written.
    left_out: dict[str, int]  # By reason, a name of LEFT_OUT.
    examples: dict[str, str]  # By reason, the first that was left out.
    max_bytes: int

    def remarks(self) -> Iterator[str]:
        """What a person should know of each reason."""
        for reason, number in self.left_out.items():
            yield (f'{count(number, "file")} {LEFT_OUT[reason].format(max_bytes=self.max_bytes)}, for example '
                   f'{self.examples[reason]}')


class _Entry(NamedTuple):
    """A file in an archive."""

    place: int  # Bytes of the archive that lie before it, and were read.
    name: bytes
    size: int  # Bytes, as the archive claims.
    chunks: Callable[[], Iterator[bytes]]
    refused: str = ''  # The reason, where it is no file to be read.


def kind_of(path: Path) -> str | None:
    """'zip' or 'tar', by the content of a file; None for anything else."""
    with path.open('rb') as raw, _decompressed(raw) as stream:
        if raw.peek(BLOCK).startswith(ZIP):
            return 'zip'
        try:
            head = stream.read(BLOCK)
        except (*DAMAGE, OSError):  # Compressed, and damaged so early that what it was cannot be told.
            return 'tar'
    try:
        tarfile.TarInfo.frombuf(head, 'utf-8', 'surrogateescape')
    except DAMAGE:
        return None
    return 'tar'


def unpack(
    archive: Path, kind: str, target: Path, flag: str, max_bytes: int = gate.Limits.max_bytes
) -> Unpacked:
    """Makes `target` the folder of what is in the archive, unless it is that already.

    `kind` is that of `kind_of`; `flag` is what chooses the target. Raises Error where the archive is damaged or
    encrypted, or where what is in it has no room.
    """
    identity = _identity(archive)
    if known := _unpacked_before(archive, identity, target, max_bytes):
        return known
    if target.exists() and not _note(target) and any(target.iterdir()):
        raise Error(f'{printable(target)} holds files that come from no archive, and {printable(archive)} is to be '
                    f'unpacked there; move them, or choose another {flag}.')
    with signals.raised(), staging.told_when_full(target, flag), staging.replacing(target, flag) as private:
        room = _Room(archive, private, flag)
        entries = {'zip': _of_zip, 'tar': _of_tar}[kind](archive, room)
        with _damage_told(archive):
            unpacked = _written(kind, entries, private, max_bytes, archive)
        if not unpacked.files:
            but = ''.join(f'; {remark}' for remark in unpacked.remarks())
            raise Error(f'{printable(archive)} holds no file that can be unpacked{but}.')
        note = {'version': VERSION, **identity, 'sha256': _sha256(archive), 'unpacked': asdict(unpacked)}
        (private / NOTE).write_text(json.dumps(note, indent=1) + '\n')
        os.sync()  # Of thousands of small files, in a hundredth of the time that asking for each one takes.
    return unpacked


# ---- once ----


def _unpacked_before(archive: Path, identity: dict, target: Path, max_bytes: int) -> Unpacked | None:
    """What the note in the folder says, where it is of this archive and of these limits."""
    note = _note(target)
    try:
        unpacked = Unpacked(**note['unpacked'])
        same = (note['version'], note['bytes'], unpacked.max_bytes) == (VERSION, identity['bytes'], max_bytes) and (
            note['mtime_ns'] == identity['mtime_ns'] or note['sha256'] == _sha256(archive))
    except (KeyError, TypeError):
        return None
    return unpacked if same else None


def _note(target: Path) -> dict:
    try:
        note = json.loads((target / NOTE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _identity(archive: Path) -> dict[str, int]:
    status = archive.stat()
    return {'bytes': status.st_size, 'mtime_ns': status.st_mtime_ns}


def _sha256(archive: Path) -> str:
    with archive.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


# ---- writing ----


class _Room:
    """How many more bytes may come out of an archive: what it really gives is counted, whatever it claims."""

    def __init__(self, archive: Path, directory: Path, flag: str):
        free, size = shutil.disk_usage(directory).free, archive.stat().st_size
        grown = max(FREELY_BYTES, MOST_TIMES_LARGER * size)
        self._left = min(free, grown)
        self._says = (
            f'{printable(archive)} holds more than the {free / 2**30:.1f} GiB that are free in '
            f'{printable(directory.parent)}. Make room, or choose another {flag}.' if free < grown else
            f'{printable(archive)} becomes more than {MOST_TIMES_LARGER} times as large as it is when it is unpacked, '
            'which no pictures do: it may be made to fill a disk. If you trust it, unpack it yourself and name the '
            'folder.')

    def take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise Error(self._says)


def _written(kind: str, entries: Iterator[_Entry], directory: Path, max_bytes: int, archive: Path) -> Unpacked:
    files, left_out, examples = 0, collections.Counter(), {}
    with Progress('Unpacking', archive.stat().st_size >> 20, 'MiB') as progress, contextlib.closing(entries):
        for number, entry in enumerate(entries):
            if number == MOST_ENTRIES:
                raise Error(f'{printable(archive)} holds more than {MOST_ENTRIES:,} files. Unpack it yourself and name '
                            'the folder.')
            if reason := _why_left_out(entry, max_bytes) or _write(entry, os.fsencode(directory), max_bytes):
                left_out[reason] += 1
                examples.setdefault(reason, printable(entry.name))
            else:
                files += 1
            progress.advance((entry.place >> 20) - progress.done)
    return Unpacked(kind, files, {reason: left_out[reason] for reason in LEFT_OUT if reason in left_out}, examples,
                    max_bytes)


def _why_left_out(entry: _Entry, max_bytes: int) -> str:
    parts = _parts(entry.name)
    if b'__MACOSX' in parts or any(part == b'.DS_Store' or part.startswith(b'._') for part in parts[-1:]):
        return 'system_file'
    if entry.refused:
        return entry.refused
    if entry.name.startswith(b'/') or b'..' in parts:
        return 'outside'
    if not parts or parts[0] == os.fsencode(NOTE) or len(parts) > MOST_DEEP or b'\0' in entry.name:
        return 'bad_name'
    return 'too_big' if entry.size > max_bytes else ''


def _parts(name: bytes) -> list[bytes]:
    return [part for part in name.split(b'/') if part not in (b'', b'.')]


def _write(entry: _Entry, directory: bytes, max_bytes: int) -> str:
    """Writes the file, or says why it is left out after all."""
    path = os.path.join(directory, *_parts(entry.name))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH120
        file = open(path, 'xb')  # noqa: PTH123, SIM115
    except (FileExistsError, NotADirectoryError, IsADirectoryError):  # On some systems, in another case too.
        return 'again'
    except OSError as error:
        if error.errno not in BAD_NAME:
            raise
        return 'bad_name'
    with file:
        size = 0
        for chunk in entry.chunks():
            size += len(chunk)
            if size > max_bytes:
                os.unlink(path)  # noqa: PTH108
                return 'too_big'
            file.write(chunk)
    return ''


@contextlib.contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    """What the readers of archives raise at one that is damaged becomes one sentence."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if getattr(error, 'errno', None):  # The system's: a full disk, a file that may not be read.
            raise
        raise Error(f'{printable(archive)} cannot be read to its end: it is cut short, damaged, or of a rare kind. '
                    'Fetch it again, or unpack it yourself and name the folder.') from None


# ---- zip ----


def _of_zip(archive: Path, room: _Room) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as opened:
        infos = sorted((info for info in opened.infolist() if not info.is_dir()), key=lambda info: info.header_offset)
        if any(info.flag_bits & ENCRYPTED for info in infos):
            raise Error(f'{printable(archive)} is encrypted. Unpack it yourself and name the folder.')
        names = [_name_in_zip(info) for info in infos]
        if not any(b'/' in name for name in names):  # Some programs on Windows write their own separator.
            names = [name.replace(b'\\', b'/') for name in names]
        for name, info in zip(names, infos, strict=True):
            yield _Entry(info.header_offset, name, info.file_size,
                         lambda info=info: _counted(opened.open(info), room), _not_in_zip(info))


def _name_in_zip(info: zipfile.ZipInfo) -> bytes:
    """The bytes that stand in the archive; most that are not said to be UTF-8 are so, or come from far away."""
    return info.orig_filename.encode('utf-8' if info.flag_bits & IN_UTF_8 else 'cp437')


def _not_in_zip(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return 'link' if kind == stat.S_IFLNK else 'special'
    readable = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return '' if info.compress_type in readable else 'coding'


def _counted(file: BinaryIO, room: _Room) -> Iterator[bytes]:
    for chunk in _chunks(file):
        room.take(len(chunk))
        yield chunk


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from iter(lambda: file.read(CHUNK), b'')


# ---- tar ----


def _of_tar(archive: Path, room: _Room) -> Iterator[_Entry]:
    with archive.open('rb') as raw, _decompressed(raw) as decompressed:
        stream = _Forward(decompressed, room)
        with tarfile.open(fileobj=stream, mode='r:', encoding='utf-8', errors='surrogateescape') as opened:
            while member := opened.next():
                opened.members.clear()  # It would keep all of them.
                if not member.isdir():
                    yield _Entry(raw.tell(), member.name.encode('utf-8', 'surrogateescape'), member.size,
                                 lambda member=member: _chunks(opened.extractfile(member)), _not_in_tar(member))
        stream.end()


def _not_in_tar(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return 'link'
    return '' if member.isreg() and not member.issparse() else 'special'


def _decompressed(raw: BinaryIO) -> BinaryIO:
    head = raw.peek(max(map(len, COMPRESSED)))
    return next((opened(raw) for magic, opened in COMPRESSED.items() if head.startswith(magic)), raw)


class _Forward:
    """A tar that is read once, from its beginning to its end; every byte of it counts, also of what is passed over.

    What tarfile itself lets pass is found here: a way back, which never ends; a header that fills the memory; one that
    is damaged or not there, which it takes for the end.
    """

    def __init__(self, file: BinaryIO, room: _Room):
        self._file, self._room = file, room
        self._last = b''
        self._place = 0

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LONGEST_HEADER:
            raise tarfile.ReadError('a header of this size')
        self._last = self._file.read(size)
        self._room.take(len(self._last))
        self._place += len(self._last)
        return self._last

    def seek(self, place: int) -> None:
        if place < self._place:
            raise tarfile.ReadError('a way back')
        while self._place < place:
            if not self.read(min(CHUNK, place - self._place)):
                raise tarfile.ReadError('it ends too soon')

    def end(self) -> None:
        """Raises ReadError where no empty header ends it; reads on, for the checksum that a compression ends with."""
        if self._last != bytes(BLOCK):
            raise tarfile.ReadError('no header, or none that ends it')
        while self.read(CHUNK):
            pass
