"""Pictures to answers, batch by batch: while the network is at one batch, threads prepare the next."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from finetune.console.errors import Reject
from finetune.console.lazy import tf
from finetune.pictures import disk, gate
from finetune.pictures.views import decode, viewer
from finetune.predicting.answering import Answer
from finetune.predicting.asked import Named
from finetune.runs.run import Run

LIMITS = {'max_bytes', 'max_pixels'}  # Of a treatment; the rest of it says how a picture is stored.
WAYS_OUT = {'too_many_pixels': 'shrink it first', 'file_too_big': 'save it smaller first'}  # By reason.


def answers(
    pictures: Iterable[Named], said: Callable, run: Run, batch_size: int, threads: int
) -> Iterator[list[Answer]]:
    """Batch by batch, what is `said` (an `answerer`) of every picture, in their order."""
    for batch in asked(pictures, said, run, batch_size, threads):
        yield [Answer(named.path, [], found) if isinstance(found, Reject) else Answer(named.path, **found)
               for named, found in batch]


def asked(
    pictures: Iterable[Named], said: Callable, run: Run, batch_size: int, threads: int
) -> Iterator[list[tuple[Named, object]]]:
    """Batch by batch every picture, in their order, with what is `said` of it, or the Reject that it is."""
    views_of = viewer(run.recipe.image_size, run.recipe.crop_fraction)
    treatment = run.records.get('treatment', {})  # Older runs do not say.
    admitted = _ahead(lambda named: named.rejected or admit(named.picture, treatment), pictures, threads,
                      most=2 * batch_size)
    batches = iter(lambda: list(itertools.islice(admitted, batch_size)), [])
    for _, (batch, views) in _ahead(lambda batch: _viewed(batch, views_of), batches, threads=1, most=1):
        found = iter(said(views) if len(views) else ())
        yield [(named, seen if isinstance(seen, Reject) else next(found)) for named, seen in batch]


def limits(treatment: dict) -> gate.Limits:
    return gate.Limits(**{name: value for name, value in treatment.items() if name in LIMITS})


def admit(picture: str | bytes, treatment: dict) -> bytes | Reject:
    """The picture, a path or the bytes of a file, as it would stand in records that were made with this treatment, or
    why it would not.
    """
    stored = {name: value for name, value in treatment.items() if name not in LIMITS}
    most = limits(treatment)
    try:
        data = picture if isinstance(picture, bytes) else disk.read(picture, most)
        return gate.admit(data, limits=most, **stored).encoded
    except Reject as reject:
        way_out = WAYS_OUT.get(reject.reason)
        return Reject(reject.reason, f'{reject.detail}; {way_out}') if way_out else reject


def _viewed(batch: list[tuple[Named, bytes | Reject]], views_of: Callable) -> tuple:
    """The batch, and the views of its good pictures. One that the decoder refuses becomes a Reject."""
    encoded = [found for _, found in batch if not isinstance(found, Reject)]
    try:
        return batch, views_of(tf.constant(encoded, tf.string))
    except tf.errors.InvalidArgumentError:  # It does not say which one.
        return _viewed([(named, _decodable(found)) for named, found in batch], views_of)


def _decodable(encoded: bytes | Reject) -> bytes | Reject:
    """The picture, or a Reject where the decoder refuses what the gate let in."""
    try:
        if not isinstance(encoded, Reject):
            decode(encoded)
        return encoded
    except tf.errors.InvalidArgumentError as error:
        return Reject('corrupt', error.message.splitlines()[0])


def _ahead(work: Callable, items: Iterable, threads: int, most: int) -> Iterator:
    """(item, work(item)) in order. Threads work ahead of the reader, on `most` items and no more."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > most:
                item, future = waiting.popleft()
                yield item, future.result()
        for item, future in waiting:
            yield item, future.result()
