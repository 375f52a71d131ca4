"""A CSV file says which class each picture is of: the columns `file` and `label`, and perhaps `split`.

A file of it may lie anywhere, also outside of the directory: whoever gives the list names it, as whoever puts a link
into a class folder does. Its content decides, as of any other, whether it is a picture.
"""

# A Path cannot hold bytes.
# ruff: noqa: PTH118

import collections
import csv
import io
import os
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finetune.building.sources import LabeledImage, Skip, folders
from finetune.building.sources.labels import read_labels, why_no_class
from finetune.building.sources.layout import SPLIT_OF, WORDS
from finetune.console.errors import Error
from finetune.console.terminal import count, printable, some
from finetune.records.dataset import BACKGROUND

COLUMNS = ('file', 'label', 'split')  # The last one may be missing.
UTF_16 = (b'\xff\xfe', b'\xfe\xff')


class Row(NamedTuple):
    """What one line says."""

    line: int
    file: bytes  # As it is written.
    label: str  # '' where there is none.
    split: str = 'train'


class File(NamedTuple):
    """A file that lines name, all with the same label."""

    path: bytes  # As it is written.
    label: str
    is_link: bool


@dataclass(frozen=True)
class Listing:
    """What a list says, and what of it is there."""

    list: str | Path
    directory: bytes  # That its paths lead on from.
    files: dict[str, list[File]]  # By split, in the order of paths.
    skipped: list[Skip]
    repeats: int  # Lines that say again what one before them says.

    def labels(self, split: str) -> set[str]:
        return {file.label for file in self.files.get(split, ())}


def read(path: str | Path) -> list[Row]:
    """Every line. Raises Error, with its number, where one cannot be understood."""
    reader = csv.reader(io.StringIO(_text(path), newline=''), skipinitialspace=True, strict=True)
    try:
        header = next(reader, [])
        columns = _columns(path, header)
        rows = [_row(path, reader.line_num, cells, columns, len(header)) for cells in reader
                if any(map(str.strip, cells))]
    except csv.Error as error:
        raise Error(f'{printable(path)} line {reader.line_num}: {error}. Mend the line.') from None
    if not rows:
        raise Error(f'{printable(path)} lists no file; write one a line below the names of the columns.')
    return rows


def find(path: str | Path, rows: Sequence[Row], *directories: str | os.PathLike) -> Listing:
    """The files of a list, below the first of the directories in which one of them lies; the list's own is the last.

    Raises Error where none is anywhere.
    """
    places = list(dict.fromkeys([*map(os.fsencode, directories), os.fsencode(Path(path).parent)]))
    for directory in places:
        if any(_exists(os.path.join(directory, row.file)) for row in rows):
            return _found(path, rows, directory)
    raise Error(f'{printable(path)}: none of the files that it lists is there, for example {printable(rows[0].file)}, '
                f'which is looked for in {some(places)}. Write the paths as they lead on from one of these, with / '
                'between folders.')


def _found(path: str | Path, rows: Sequence[Row], directory: bytes) -> Listing:
    by_file = collections.defaultdict(list)
    for row in rows:
        by_file[os.path.normpath(os.path.join(directory, row.file))].append(row)
    files, skipped, repeats = collections.defaultdict(list), [], 0
    for _, said in sorted(by_file.items()):
        first, where = said[0], os.path.join(directory, said[0].file)
        if why := _why_not_used(said) or _why_not_there(where):
            skipped.append(Skip(where, *why))
        else:
            files[first.split].append(File(first.file, first.label, os.path.islink(where)))  # noqa: PTH114
            repeats += len(said) - 1
    return Listing(path, directory, dict(files), skipped, repeats)


def classes(found: Listing, labels_file: str | None) -> tuple[str, ...]:
    """('background', class 1, …): the lines of the labels file, or the labels of the training pictures, sorted."""
    where, trained = printable(found.list), found.labels('train') - {BACKGROUND}
    if not trained:
        but = ''.join(f'; {printable(skip.path)}: {printable(skip.detail)}' for skip in found.skipped[:1])
        raise Error(f'{where} lists no picture of a class to train on{but}.')
    if labels_file:
        listed = read_labels(labels_file, map(os.fsencode, trained))
        if not trained & set(listed):
            raise Error(f'{printable(labels_file)}: none of its {len(listed)} classes is a label in {where}, which has '
                        f'{some(sorted(trained))}.')
        return (BACKGROUND, *listed)
    for split in found.files:
        if extra := sorted(found.labels(split) - trained - {BACKGROUND}):
            raise Error(f'{where}: {some(extra)} has pictures for {split} and none to train on. Add some, or leave it '
                        'out with --labels_file.')
    return (BACKGROUND, *sorted(trained))


class LabeledFiles:
    """The pictures that the list has for one split. A `Source`."""

    def __init__(self, found: Listing, split: str, labels: Sequence[str], loader: folders.FolderLoader):
        number = {label: index for index, label in enumerate(labels)}
        self.where = printable(found.list)
        self.loader = loader
        self.ignored = collections.Counter()
        self.skipped = found.skipped if split == 'train' else ()  # Once, whatever split they were meant for.
        self._found, self._split, self._all_labels = found, split, labels
        self._files = [file for file in found.files[split] if file.label in number]
        self._labels = array('L', (number[file.label] for file in self._files))
        counts = collections.Counter(self._labels)
        self.per_label = [counts[label] for label in range(len(labels))]

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """In a shuffled order, which begins from sorted names and not from the order of the lines."""
        order = array('L', range(len(self._files)))
        random.Random(seed).shuffle(order)
        for index in order:
            file = self._files[index]
            notes = ('symlink',) if file.is_link else ()
            yield LabeledImage(self._labels[index], record_name(file), file.path, notes)

    def path(self, image: LabeledImage) -> bytes:
        return os.path.join(self._found.directory, image.key)

    def stored_bytes(self) -> int:
        paths = (os.path.join(self._found.directory, file.path) for file in self._files)
        return folders.stored_bytes(paths, len(self._files), self.loader)

    def remarks(self) -> Iterator[str]:
        found = self._found.labels(self._split)
        if missing := [label for label in self._all_labels[1:] if label not in found]:
            yield f'{self.where} lists no picture of {some(missing)} for {self._split}.'
        if unlisted := sorted(found - set(self._all_labels) - {BACKGROUND}):
            yield (f'{self.where}: {some(unlisted)} not in the labels file: '
                   f'{len(self._found.files[self._split]) - len(self._files)} pictures are left out.')
        if self._split == 'train' and self._found.repeats:
            yield f'{self.where}: {count(self._found.repeats, "line")} that say the same again count for nothing.'


def record_name(file: File) -> bytes:
    """LABEL/FILE, without what leads out of the directory: a name of a record is below its class everywhere."""
    parts = os.path.normpath(file.path).split(b'/')
    return b'/'.join([os.fsencode(file.label), *(part for part in parts if part not in (b'', b'..'))])


# ---- lines ----


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Error(f'{printable(path)}: {error.strerror}; --labels_csv names a CSV file with the columns file and '
                    'label.') from None
    try:
        if data.startswith(UTF_16):
            raise Error(f'{printable(path)} is in UTF-16; save it as UTF-8.')
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b'\n') + 1
        raise Error(f'{printable(path)} line {line} is not UTF-8; save the file as UTF-8.') from None


def _columns(path: str | Path, header: Sequence[str]) -> dict[str, int]:
    """The places of those that are read, by name."""
    names = [name.strip().lower() for name in header]
    if missing := [name for name in COLUMNS[:2] if names.count(name) != 1]:
        there = some(header) if any(names) else 'nothing'
        raise Error(f'{printable(path)}: the first line names the columns, once file and once label, with a comma '
                    f'between them, and perhaps split; here it is {there}, and {some(missing)} is not in it once.')
    return {name: names.index(name) for name in COLUMNS if name in names}


def _row(path: str | Path, line: int, cells: Sequence[str], columns: dict[str, int], width: int) -> Row:
    place = f'{printable(path)} line {line}'
    if len(cells) != width:
        raise Error(f'{place} has {count(len(cells), "cell")}, the first line {width}. A name with a comma stands in '
                    'double quotes.')
    file, label = cells[columns['file']], cells[columns['label']].strip()
    split = cells[columns['split']].strip() if 'split' in columns else ''
    if not file.strip():
        raise Error(f'{place} names no file. Mend or delete the line.')
    if wrong := why_no_class(label):
        raise Error(f'{place}: the label {wrong}')
    if split.lower() not in {'', *SPLIT_OF}:
        raise Error(f'{place}: the split is {printable(split)}, expected {", ".join(WORDS)}, or nothing for a picture '
                    'that trains.')
    return Row(line, os.fsencode(file), label, SPLIT_OF.get(split.lower(), 'train'))


def _why_not_used(said: Sequence[Row]) -> tuple[str, str] | None:
    """The reason and the detail, where the lines about one file say nothing, or not the same."""
    first = said[0]
    for row in said:
        if not row.label:
            return 'no_label', f'line {row.line} of the list gives it no label'
        for one, other in ((first.label, row.label), (first.split, row.split)):
            if one != other:
                return 'contradiction', f'line {first.line} of the list says {one}, line {row.line} says {other}'
    return None


def _why_not_there(path: bytes) -> tuple[str, str] | None:
    if not _exists(path):
        return 'not_found', 'the list names it, and there is no such file'
    reason, detail = folders.why_unreadable(path)  # A name may also promise nothing: then the content decides.
    return (reason, detail) if reason == 'unsupported_format' else None


def _exists(path: bytes) -> bool:
    try:
        os.lstat(path)
    except PermissionError:  # Whoever reads it is told so.
        return True
    except (OSError, ValueError):  # No such file, or a name that no file can have.
        return False
    return True
