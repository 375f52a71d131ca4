"""Sources become shards: pictures are judged in worker processes and written here, in one order.

The place of a picture in the shuffled list of all pictures decides its shard. A rejected one leaves its shard one
shorter and moves no other: where the split is known, nothing else has to be before the first record is written. Where
the pictures themselves decide it, records wait in a spool until every picture has been judged.
"""

import collections
import contextlib
import itertools
import signal
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from finetune.building import workers
from finetune.building.sources import LabeledImage, Loader, Source
from finetune.console.errors import Error, Reject
from finetune.console.terminal import printable
from finetune.records import dataset, examples

SPOOLED = struct.Struct('<QQQ')  # Place, label, length of the record that follows.
SPOOL_FILE_BYTES = 256 << 20
BUFFER_BYTES = 1 << 20
DECODER_DIED = {  # By the signal that ended two worker processes at one picture: what a C library did with it.
    signal.SIGSEGV: 'crashed', signal.SIGBUS: 'crashed', signal.SIGILL: 'crashed', signal.SIGFPE: 'crashed',
    signal.SIGABRT: 'gave up', signal.SIGPROF: f'took more than {workers.MOST_SECONDS} seconds',
}


class Verdict(NamedTuple):
    """What a worker process says of one picture: a record, or why there is none."""

    record: bytes | None
    key: int = 0  # The first 64 bits of its digest.
    size: tuple[int, int] = (0, 0)  # Height, width.
    notes: tuple[str, ...] = ()
    reason: str = ''
    detail: str = ''


@dataclass(frozen=True)
class Judge:
    """What the worker processes do."""

    loader: Loader
    labels: tuple[str, ...]

    def __call__(self, image: LabeledImage) -> Verdict:
        try:
            loaded = self.loader.load(image.key)
        except Reject as reject:
            return Verdict(None, reason=reject.reason, detail=reject.detail)
        record = examples.encode_example(
            loaded.encoded, self.loader.format, loaded.height, loaded.width,
            image.label, self.labels[image.label], image.filename,
        )
        key = int.from_bytes(loaded.digest[:8], 'big') or 1  # 0 says that there is no record.
        return Verdict(record, key, (loaded.height, loaded.width), (*image.notes, *loaded.notes))


def _judge_died(image: LabeledImage, code: int) -> Verdict:
    """The verdict on a picture that ended the process which read it, and the fresh one that read it again."""
    if did := DECODER_DIED.get(-code):
        return Verdict(None, reason='decoder_died', detail=f'the decoder {did} at it')
    raise Error(f'{printable(image.filename)}: two worker processes ended while they read this picture; most likely '
                'the memory did not suffice. Try a smaller --num_threads, or take the picture away.')


@dataclass
class Outcome:
    """What became of the pictures of one source."""

    keys: array = field(default_factory=lambda: array('Q'))  # By place; 0 where there is no record.
    labels: array = field(default_factory=lambda: array('I'))  # By place.
    splits: Sequence[str] = ()  # By place; known when every picture has been judged.
    rejected: list[tuple[LabeledImage, str, str]] = field(default_factory=list)  # With reason and detail.
    written: int = 0
    notes: collections.Counter = field(default_factory=collections.Counter)
    noted: dict[str, bytes] = field(default_factory=dict)  # The first picture of each note.
    smallest: tuple[int, int] | None = None  # Height, width, by area.
    largest: tuple[int, int] | None = None

    def add(self, image: LabeledImage, verdict: Verdict) -> None:
        self.keys.append(verdict.key)
        self.labels.append(image.label)
        if verdict.record is None:
            self.rejected.append((image, verdict.reason, verdict.detail))
            return
        self.written += 1
        self.notes.update(verdict.notes)
        for note in verdict.notes:
            self.noted.setdefault(note, image.filename)
        self.smallest = min(self.smallest or verdict.size, verdict.size, key=area)
        self.largest = max(self.largest or verdict.size, verdict.size, key=area)


def area(size: tuple[int, int]) -> int:
    """To compare sizes with."""
    return size[0] * size[1]


class SplitWriter:
    """The shards of one split, filled from the first to the last."""

    def __init__(self, directory: Path, name: str, shards: int, places: int, labels: int):
        self.name = name
        self._paths = [directory / dataset.shard_name(name, index, shards) for index in range(shards)]
        self._places = places
        self._per_class = [0] * labels
        self._shards: list[dataset.Shard] = []
        self._open: dataset.ShardWriter | None = None

    def write(self, place: int, label: int, record: bytes) -> None:
        self._advance(place * len(self._paths) // self._places)
        self._open.write(record)
        self._per_class[label] += 1

    def close(self) -> dataset.Split:
        self._advance(len(self._paths) - 1)
        self._shards.append(self._open.close())
        return dataset.Split(self.name, sum(self._per_class), tuple(self._per_class), tuple(self._shards))

    def abandon(self) -> None:
        if self._open:
            self._open.abandon()

    def _advance(self, index: int) -> None:
        """Finishes shards until number `index` is the open one; a shard without pictures is an empty file."""
        self._open = self._open or dataset.ShardWriter(self._paths[0])
        while len(self._shards) < index:
            self._shards.append(self._open.close())
            self._open = dataset.ShardWriter(self._paths[len(self._shards)])


class Spool:
    """Records whose split is not known before every picture has been judged: written and read once, in one order.

    They lie in several files, each of which is removed when it has been read: together with the shards that are made
    of them, they take the room of the shards and of one such file.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._room = 0  # Bytes, in the open file.

    def write(self, place: int, label: int, record: bytes) -> None:
        if self._room <= 0:
            self._begin_file()
        self._file.write(SPOOLED.pack(place, label, len(record)))
        self._file.write(record)
        self._room -= SPOOLED.size + len(record)

    def read(self) -> Iterator[tuple[int, int, bytes]]:
        """Place, label and record of each."""
        self._end_file()
        for path in self._paths:
            with path.open('rb', buffering=BUFFER_BYTES) as file:
                while header := file.read(SPOOLED.size):
                    place, label, length = SPOOLED.unpack(header)
                    yield place, label, file.read(length)
            path.unlink()

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # The disk is full, and closing writes what was buffered.
            self._end_file()

    def _begin_file(self) -> None:
        self._end_file()
        self._paths.append(self._directory / f'spool-{len(self._paths):05d}')
        self._file, self._room = self._paths[-1].open('xb', buffering=BUFFER_BYTES), SPOOL_FILE_BYTES

    def _end_file(self) -> None:
        if self._file:
            self._file.close()


@contextlib.contextmanager
def spool(directory: Path) -> Iterator[Spool]:
    spool = Spool(directory)
    try:
        yield spool
    except BaseException:
        spool.abandon()
        raise


@contextlib.contextmanager
def split_writer(directory: Path, name: str, shards: int, places: int, labels: int) -> Iterator[SplitWriter]:
    writer = SplitWriter(directory, name, shards, places, labels)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise


def convert(
    source: Source,
    labels: tuple[str, ...],
    write: Callable[[int, int, bytes], None],
    seed: int,
    processes: int,
    advance: Callable[[int], None],
    modules: Sequence[str] = (),
) -> Outcome:
    """Reads every picture of the source once; `write` gets its place, its label and its record.

    `modules` are what the processes import before they start, once for all.
    """
    outcome, place = Outcome(), 0
    images, to_judge = itertools.tee(source.images(seed))  # The copy lies at most a few jobs behind.
    verdicts = workers.ordered_map(Judge(source.loader, labels), to_judge, processes, modules, _judge_died)
    with contextlib.closing(verdicts):
        for image, verdict in zip(images, verdicts, strict=True):
            outcome.add(image, verdict)
            if verdict.record is not None:
                write(place, image.label, verdict.record)
            place += 1
            advance(1)
    return outcome


# ---- the same picture twice ----


class Place(NamedTuple):
    split: str
    label: int
    filename: bytes


def duplicates(parts: Sequence[tuple[Source, Outcome]], seed: int) -> list[list[Place]]:
    """Groups of places that hold the same picture. `parts`: sources and their outcomes.

    Only keys are kept while pictures are read; the names come from a second walk over the lists.
    """
    found = repeated([outcome.keys for _, outcome in parts])
    groups: dict[int, list[Place]] = collections.defaultdict(list)
    for source, outcome in parts if found else ():
        for image, key, split in zip(source.images(seed), outcome.keys, outcome.splits, strict=True):
            if key in found:
                groups[key].append(Place(split, image.label, image.filename))
    return sorted(sorted(group, key=lambda place: place.filename) for group in groups.values())


def repeated(keys: Sequence[array]) -> set[int]:
    """The keys that occur more than once, found a sixteenth at a time: as integers they take much memory."""
    found = set()
    for share in range(16):
        seen = sorted(key for key in itertools.chain(*keys) if key >> 60 == share)
        found.update(key for key, following in itertools.pairwise(seen) if key == following)
    return found - {0}
