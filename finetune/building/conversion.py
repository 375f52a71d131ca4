"""Sources become shards: pictures are judged in worker processes and written here, in one order.

The place of a picture in the shuffled list of all pictures decides its shard. A rejected one leaves its shard one
shorter and moves no other: nothing has to be known before the first record is written.
"""

import collections
import contextlib
import itertools
import signal
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from finetune.building import workers
from finetune.building.sources import LabeledImage, Loader, Source
from finetune.console.errors import Error, Reject
from finetune.console.terminal import printable
from finetune.records import dataset, examples

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
    rejected: list[tuple[LabeledImage, str, str]] = field(default_factory=list)  # With reason and detail.
    written: int = 0
    notes: collections.Counter = field(default_factory=collections.Counter)
    smallest: tuple[int, int] | None = None  # Height, width, by area.
    largest: tuple[int, int] | None = None

    def add(self, image: LabeledImage, verdict: Verdict) -> None:
        self.keys.append(verdict.key)
        if verdict.record is None:
            self.rejected.append((image, verdict.reason, verdict.detail))
            return
        self.written += 1
        self.notes.update(verdict.notes)
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
    writer_of: Callable[[int], SplitWriter],
    seed: int,
    processes: int,
    advance: Callable[[int], None],
    modules: Sequence[str] = (),
) -> Outcome:
    """Reads every picture of the source once and writes it with the writer that its key belongs to.

    `modules` are what the processes import before they start, once for all.
    """
    outcome, place = Outcome(), 0
    images, to_judge = itertools.tee(source.images(seed))  # The copy lies at most a few jobs behind.
    verdicts = workers.ordered_map(Judge(source.loader, labels), to_judge, processes, modules, _judge_died)
    with contextlib.closing(verdicts):
        for image, verdict in zip(images, verdicts, strict=True):
            outcome.add(image, verdict)
            if verdict.record is not None:
                writer_of(verdict.key).write(place, image.label, verdict.record)
            place += 1
            advance(1)
    return outcome


# ---- the same picture twice ----


class Place(NamedTuple):
    split: str
    label: int
    filename: bytes


def duplicates(parts: Sequence[tuple[Source, Outcome, Callable[[int], str]]], seed: int) -> list[list[Place]]:
    """Groups of places that hold the same picture. `parts`: sources, their outcomes, and the split of each key.

    Only keys are kept while pictures are read; the names come from a second walk over the lists.
    """
    repeated = _repeated([outcome.keys for _, outcome, _ in parts])
    groups: dict[int, list[Place]] = collections.defaultdict(list)
    for source, outcome, split_of in parts if repeated else ():
        for image, key in zip(source.images(seed), outcome.keys, strict=True):
            if key in repeated:
                groups[key].append(Place(split_of(key), image.label, image.filename))
    return sorted(sorted(group, key=lambda place: place.filename) for group in groups.values())


def _repeated(keys: Sequence[array]) -> set[int]:
    """The keys that occur more than once, found a sixteenth at a time: as integers they take much memory."""
    repeated = set()
    for share in range(16):
        seen = sorted(key for key in itertools.chain(*keys) if key >> 60 == share)
        repeated.update(key for key, following in itertools.pairwise(seen) if key == following)
    return repeated - {0}
