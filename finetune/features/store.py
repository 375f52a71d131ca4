"""The outputs of a network's frozen part: computed once for every picture and view, then read in its place.

    DIRECTORY/KEY/features.npy    a row for every record of a split: its label, its features [views, …]
    DIRECTORY/KEY/features.json   what they depend on; KEY is its hash, so other weights or records have another place
    DIRECTORY/KEY/pictures.npy    for every row a digest of the picture as it is stored, and a check of the features

Records that are built again with other photos among them have another place. There the rows of every picture that
stands in a file beside it, of records before or of another split, are taken over: with one view they depend on the
picture alone. Distorted views depend on its place besides, and are all computed again.

Order of a pass: lock, go on where a killed pass stopped, append rows, make them durable, rename: a file with
the last name is whole. All of it may be deleted at any time; it is computed again when it is needed.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console import files, locks
from finetune.console.errors import Error
from finetune.console.files import write_atomically
from finetune.console.lazy import keras, tf
from finetune.console.teams import ALONE, Team
from finetune.console.terminal import Progress, printable, say
from finetune.features import earlier
from finetune.models import cuts, engines
from finetune.pictures.views import Distortion
from finetune.records import batches, dataset, stored
from finetune.records.dataset import Records

FORMAT = 5  # Another one where the same facts would give other bytes.
PASS_BATCH = 32  # Pictures times views.
IN_MEMORY = 2**30  # Bytes of features that training holds a copy of; larger files are read as it goes.
ALIGNMENT = 64  # Bytes, of what TensorFlow takes without a copy of its own.
COPIED_AT_ONCE = 4096  # Rows.
SECONDS_BETWEEN_NOTES = 10  # At most so much work is lost with a power cut.
TOGETHER = 'together'  # Names the pass that several machines are at.
# Of what is kept. The note of progress goes before the rows that it vouches for, and last what says what it all is.
NAMES = ('features.npy', 'progress.json', TOGETHER, 'partial.npy', earlier.PICTURES, 'features.json')


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Everything that decides the features of one split."""

    records: Records
    split: str
    parts: cuts.Parts
    image_size: int
    crop_fraction: float
    views: int  # View 0 is that of evaluation, the others are distorted,
    distortion: Distortion
    seed: int
    dtype: str  # 'float16' or 'float32'
    engine: str = 'tensorflow'
    mirrored: bool = False  # but for view 1, which then is view 0 mirrored.

    @functools.cached_property
    def facts(self) -> dict:
        views = {'distortion': dataclasses.asdict(self.distortion), 'seed': self.seed} if self.views > 1 else {}
        mirrored = {'mirrored': True} if self.mirrored else {}
        return {
            'format': FORMAT, 'records': self.records.fingerprint, 'split': self.split, 'cut': self.parts.cut,
            'weights': _fingerprint(self.parts.frozen), 'precision': keras.config.dtype_policy().name,
            'image_size': self.image_size, 'crop_fraction': self.crop_fraction, 'views': self.views, **views,
            **mirrored, 'dtype': self.dtype, 'shape': self.shape, 'engine': self.engine,
        }

    @property
    def key(self) -> str:
        return earlier.key(self.facts)

    @property
    def count(self) -> int:
        return self.records.split(self.split).records

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view's features."""
        return tuple(self.parts.frozen.output_shape[1:])

    @property
    def row(self) -> np.dtype:
        return np.dtype([('label', '<i4'), ('features', self.dtype, (self.views, *self.shape))])


def _fingerprint(model) -> str:
    """Of the names and values of the weights."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f'{weight.path} {weight.shape} {weight.dtype}\n'.encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Features:
    """What was kept of a split; its batches are like those of pictures, with features for 'image'."""

    rows: np.ndarray  # [records] of Wanted.row, memory-mapped.

    def for_training(
        self, batch_size: int, seed: int, first_step: int = 0, machine: tuple[int, int] = (0, 1), towers: int = 1
    ):
        """Full batches without end, from the one that step `first_step` uses on; the step alone decides its batch.

        Machine (i, n) of n gets its part of each, as of pictures.
        """
        index, machines = machine
        count, views = self.rows['features'].shape[:2]

        def epoch(number):
            places = tf.numpy_function(
                lambda number: _epoch(count, views, seed, int(number)), [number], tf.int64, stateful=False)
            return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(places, (count, 2)))

        first_epoch, first_place = divmod(first_step * batch_size, count)
        places = tf.data.Dataset.range(first_epoch, 2**62).flat_map(epoch).skip(first_place)
        places = places.batch(batch_size // machines, drop_remainder=True)
        if machines > 1:
            places = places.shard(machines, index)
        if towers > 1:
            places = places.unbatch().batch(batch_size // machines // towers, drop_remainder=True)
        rows = places.map(self._in_memory() if self.rows.nbytes < IN_MEMORY else self._on_disk())
        as_written = tf.data.Options()  # To rewrite the dataset, TensorFlow would copy what it holds.
        as_written.experimental_optimization.apply_default_optimizations = False
        return rows.prefetch(tf.data.AUTOTUNE).with_options(as_written)

    def _in_memory(self) -> Callable:
        """Places [b, 2] (record, view) -> a batch, from one copy of all features."""
        labels, features = tf.constant(self.rows['label']), _held(self.rows)  # In this order: it lets the file go.

        def batch(places):
            return {'image': tf.cast(tf.gather_nd(features, places), tf.float32),
                    'label': tf.gather(labels, places[:, 0])}

        return batch

    def _on_disk(self) -> Callable:
        """The same, from the file; the system keeps in memory what it can."""
        def read(places):
            records, views = places.T
            return self.rows['label'][records], self.rows['features'][records, views].astype(np.float32)

        def batch(places):
            labels, features = tf.numpy_function(read, [places], (tf.int32, tf.float32), stateful=False)
            shape = (places.shape[0], *self.rows['features'].shape[2:])
            return {'image': tf.ensure_shape(features, shape), 'label': tf.ensure_shape(labels, shape[:1])}

        return batch

    def for_evaluation(self, batch_size: int, part: tuple[int, int] | None = None):
        """View 0 of every record once, in the order of the shards. File names are not kept: they are empty.

        With `part`, of the records from its first number to before its second.
        """
        begin, end = part or (0, len(self.rows))
        shape = (None, *self.rows['features'].shape[2:])

        def batch(first):
            labels, features = tf.numpy_function(
                lambda first: self._part(first, min(first + batch_size, end)), [first], (tf.int32, tf.float32),
                stateful=False)
            labels = tf.ensure_shape(labels, (None,))
            nameless = tf.fill(tf.shape(labels), '')
            return {'image': tf.ensure_shape(features, shape), 'label': labels, 'filename': nameless}

        return tf.data.Dataset.range(begin, end, batch_size).map(batch).prefetch(tf.data.AUTOTUNE)

    def _part(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[first:end]
        return rows['label'].copy(), rows['features'][:, 0].astype(np.float32)


def _held(rows: np.ndarray):
    """The features of mapped rows as a tensor that on a CPU is the only copy in memory: tf.constant would hold two."""
    features = rows['features']
    room = np.empty(features.nbytes + ALIGNMENT, np.uint8)
    aligned = -room.ctypes.data % ALIGNMENT
    copy = room[aligned:aligned + features.nbytes].view(features.dtype).reshape(features.shape)
    for first in range(0, len(rows), COPIED_AT_ONCE):
        copy[first:first + COPIED_AT_ONCE] = features[first:first + COPIED_AT_ONCE]
        files.let_go(rows)
    return tf.experimental.dlpack.from_dlpack(copy.__dlpack__())


class Pooled(NamedTuple):
    """Averaged outputs of a backbone for some pictures, side by side where a head reads several layers."""

    rows: np.ndarray  # [n, c]
    last_channels: int

    @property
    def of_last_layer(self) -> np.ndarray:
        """[n, last_channels]: what pictures are compared by; earlier layers see textures alike where things differ."""
        return self.rows[:, -self.last_channels:]


def _epoch(count: int, views: int, seed: int, epoch: int) -> np.ndarray:
    """[count, 2]: the records of an epoch in their order, and the view of each."""
    random = np.random.default_rng([seed, epoch])
    return np.stack([random.permutation(count), random.integers(views, size=count)], axis=1)


# On disk -----------------------------------------------------------------------------------------------


def find_or_compute(
    wanted: Wanted, directory: Path, threads: int | None = None, team: Team = ALONE
) -> Features:
    """The features of a split, computed now unless they are all there. Two runs at once: the second one waits.

    The machines of a team each compute a part, where they all see the same directory.
    """
    place = directory / wanted.key
    try:
        if team.count > 1 and _compute_together(wanted, place, threads, team):
            return Features(np.load(place / 'features.npy', mmap_mode='r'))
        if not _is_whole(wanted, place):
            place.mkdir(parents=True, exist_ok=True)
            with locks.held(place / 'lock', lambda pid: _say_that_we_wait(place)):
                if not _is_whole(wanted, place):  # Another run may have computed them while we waited.
                    _compute(wanted, place, threads)
                    return Features(np.load(place / 'features.npy', mmap_mode='r'))
        if team.is_chief:
            say(f'Using features computed before ({printable(place)}: {wanted.split})')
        return Features(np.load(place / 'features.npy', mmap_mode='r'))
    except OSError as error:
        raise Error(f'{printable(place)}: the features cannot be kept there ({error.strerror or error}). '
                    'Name another --feature_dir, or compute them at every step with --feature_cache=off.') from None


def _is_whole(wanted: Wanted, place: Path) -> bool:
    path = place / 'features.npy'
    return path.exists() and path.stat().st_size == len(_header(wanted)) + wanted.count * wanted.row.itemsize


def _header(wanted: Wanted) -> bytes:
    """The beginning of an .npy file, which any program with NumPy reads."""
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(wanted.row)
    np.lib.format.write_array_header_1_0(
        header, {'descr': descr, 'fortran_order': False, 'shape': (wanted.count,)})
    return header.getvalue()


def _say_that_we_wait(place: Path) -> None:
    say(f'Another run is computing the same features ({printable(place)}); waiting for it')


def _compute(wanted: Wanted, place: Path, threads: int | None) -> None:
    """Appends to the partial file, from the record that the last note of progress names on."""
    pictures, known = None, []
    if wanted.views == 1:
        pictures = stored.read(wanted.records, wanted.split)
        _check_count(wanted, len(pictures.labels))
        known = earlier.find(wanted.facts, wanted.row, place.parent, pictures.digests)
    partial, note, header = place / 'partial.npy', place / 'progress.json', _header(wanted)
    done = json.loads(note.read_text())['records'] if note.exists() else 0
    if not partial.exists() or partial.stat().st_size < len(header) + done * wanted.row.itemsize:
        done = 0
        note.unlink(missing_ok=True)  # It vouches for rows on the disk, and these are still to come.
    _announce(wanted, place, done, sum(len(each.places) for each in known))
    write_atomically(place / 'features.json', f'{json.dumps(wanted.facts, indent=2)}\n'.encode())
    reading = Progress('Computing features', wanted.count, 'pictures')
    with partial.open('r+b' if done else 'wb') as file, reading as progress:
        progress.start_at(done)
        file.truncate(len(header) + done * wanted.row.itemsize)
        file.seek(0)
        file.write(header)
        file.seek(0, os.SEEK_END)
        noted = time.monotonic()
        for rows in _rows(wanted, done, pictures, known, threads):
            file.write(rows.tobytes())
            progress.advance(len(rows))
            if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                _make_durable(file)
                _check_unchanged(wanted)  # Or rows of other records would be gone on from.
                write_atomically(note, json.dumps({'records': progress.done}).encode())
                noted = time.monotonic()
        _make_durable(file)
    _check_count(wanted, progress.done)
    if pictures:
        earlier.write_pictures(place, pictures.digests, np.load(partial, mmap_mode='r')['features'])
    partial.rename(place / 'features.npy')
    note.unlink(missing_ok=True)


def _compute_together(wanted: Wanted, place: Path, threads: int | None, team: Team) -> bool:
    """Every machine its part of the rows, into their places in the one file; the chief makes it, and gives it its name.

    Nothing happens, and it returns False, where it is whole, or a machine does not see it, so that each computes all.
    """
    with contextlib.ExitStack() as held:
        begun = None
        if team.is_chief:
            place.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.held(place / 'lock', lambda pid: _say_that_we_wait(place)))
            begun = None if _is_whole(wanted, place) else _begin_together(wanted, place, team)
        begun = team.told(begun)
        if begun is None:
            return False
        token = place / TOGETHER
        if not all(team.gathered(token.is_file() and token.read_text() == begun)):
            return False
        computed = _compute_part(wanted, place, threads, team)
        counts = team.gathered(computed)
        if team.is_chief:
            _check_count(wanted, sum(counts))
            partial = place / 'partial.npy'
            if wanted.views == 1:
                digests = stored.read(wanted.records, wanted.split).digests
                earlier.write_pictures(place, digests, np.load(partial, mmap_mode='r')['features'])
            partial.rename(place / 'features.npy')
            for note in (token, *place.glob('progress*.json')):
                note.unlink(missing_ok=True)
        team.met()
        return True


def _begin_together(wanted: Wanted, place: Path, team: Team) -> str:
    """Makes the file, of its full size, and a token by which the others know it."""
    partial, header = place / 'partial.npy', _header(wanted)
    size = len(header) + wanted.count * wanted.row.itemsize
    if not partial.exists() or partial.stat().st_size != size:
        for note in place.glob('progress*.json'):
            note.unlink()
    (place / 'progress.json').unlink(missing_ok=True)  # It is about a file that grows.
    _announce(wanted, place, 0, 0)
    write_atomically(place / 'features.json', f'{json.dumps(wanted.facts, indent=2)}\n'.encode())
    with partial.open('r+b' if partial.exists() else 'wb') as file:
        file.write(header)
        file.truncate(size)
        _make_durable(file)
    token = secrets.token_hex(8)
    write_atomically(place / TOGETHER, token.encode())
    return token


def _compute_part(wanted: Wanted, place: Path, threads: int | None, team: Team) -> int:
    """Writes the rows of this machine's part, and returns how many there were; more than asked for in the last part."""
    first, end = team.part(wanted.count)
    pictures, known = None, []
    if wanted.views == 1:
        pictures = stored.read(wanted.records, wanted.split)
        _check_count(wanted, len(pictures.labels))
        known = earlier.find(wanted.facts, wanted.row, place.parent, pictures.digests)
    note = place / f'progress-{team.index}-of-{team.count}.json'
    done = json.loads(note.read_text())['records'] if note.exists() else first
    reading = Progress('Computing features', end - first, 'pictures') if team.is_chief else None
    with (place / 'partial.npy').open('r+b') as file, reading or contextlib.nullcontext():
        file.seek(len(_header(wanted)) + done * wanted.row.itemsize)
        if reading:
            reading.start_at(done - first)
        noted = time.monotonic()
        for rows in _rows(wanted, done, pictures, known, threads, end):
            kept = rows if end == wanted.count else rows[:end - done]
            file.write(kept[:max(0, end - done)].tobytes())
            done += len(kept)
            if reading:
                reading.advance(len(kept))
            if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                _make_durable(file)
                _check_unchanged(wanted)
                write_atomically(note, json.dumps({'records': done}).encode())
                noted = time.monotonic()
        _make_durable(file)
    return done - first


def _check_count(wanted: Wanted, found: int) -> None:
    """Raises Error where the records are not those that were opened, or not as many as they said."""
    _check_unchanged(wanted)
    if found != wanted.count:
        raise Error(f'{printable(wanted.records.directory)}: {wanted.split} has {found} of {wanted.count} records. '
                    'Build the records again.')


def _check_unchanged(wanted: Wanted) -> None:
    dataset.check_unchanged(wanted.records.directory, wanted.records.fingerprint)


def _announce(wanted: Wanted, place: Path, done: int, known: int) -> None:
    """Says what is going to be computed and how many bytes it takes; refuses where they have no room."""
    size, room = wanted.count * wanted.row.itemsize, shutil.disk_usage(place).free
    views = f'{wanted.views} views' if wanted.views > 1 else 'the central view'
    what = f'{wanted.split}, {wanted.parts.cut}, {views}, {_megabytes(size)}'
    if (wanted.count - done) * wanted.row.itemsize > room:
        raise Error(f'the features of {wanted.count} pictures ({what}) do not fit into {printable(place)}, which '
                    f'has room for {_megabytes(room)}. Take fewer --views, name a --feature_dir on another disk, '
                    'or compute them at every step with --feature_cache=off.')
    say(f'Computing features of {wanted.count} pictures once ({what}) with {wanted.engine} (--engine)'
        + (f'; {known:,} of {wanted.count:,} were computed before' if known else '')
        + (f'; {done} are done' if done else ''))


def _rows(
    wanted: Wanted, done: int, pictures: stored.Stored | None, known: list[earlier.Known], threads: int | None,
    last: int | None = None,
) -> Iterator[np.ndarray]:
    """The rows of the file from record `done` on, some at a time: those that are known, and the others computed.

    With `last`, of the records before that one.
    """
    last = wanted.count if last is None else last
    asked = np.arange(wanted.count) >= done
    asked[last:] = False
    for each in known:
        asked[each.places] = False
    computed = _computed(wanted, asked, threads)
    if not known:
        yield from computed
        return
    computed = itertools.chain.from_iterable(computed)
    for first in range(done, last, PASS_BATCH):
        end = min(first + PASS_BATCH, last)
        rows = np.empty(end - first, wanted.row)
        rows['label'] = pictures.labels[first:end]  # Not those of before: a picture may have got another one.
        for each in known:
            some = slice(*np.searchsorted(each.places, (first, end)))
            rows['features'][each.places[some] - first] = each.features[each.rows[some]]
        missing = np.flatnonzero(asked[first:end])
        new = list(itertools.islice(computed, len(missing)))
        if len(new) < len(missing):  # The records are being replaced: whoever counts the rows finds it.
            return
        for place, row in zip(missing, new, strict=True):
            rows[place] = row
        yield rows


def _computed(wanted: Wanted, asked: np.ndarray, threads: int | None) -> Iterator[np.ndarray]:
    """The rows of the records that are asked for, bool [records], a batch at a time."""
    if not asked.any():  # To prepare the network takes seconds.
        return
    outputs_of = engines.frozen(wanted.parts.frozen, wanted.engine)
    pictures = batches.of_all_views(
        wanted.records, wanted.split, wanted.image_size, wanted.crop_fraction, wanted.views, wanted.distortion,
        wanted.seed, max(1, PASS_BATCH // wanted.views), asked, threads, wanted.mirrored)
    for batch in pictures:
        images = tf.reshape(batch['image'], (-1, *batch['image'].shape[2:]))
        rows = np.empty(len(batch['label']), wanted.row)
        rows['label'] = batch['label']
        with np.errstate(over='ignore'):  # The next lines find it.
            rows['features'] = tf.cast(outputs_of(images), tf.float32).numpy().reshape(rows['features'].shape)
        if not np.isfinite(rows['features']).all():
            raise Error(f'the outputs of {wanted.parts.cut} are too large for {wanted.dtype}. '
                        'Use --feature_dtype=float32, or --feature_cache=off.')
        yield rows


def forget_others(directory: Path, records: Records) -> None:
    """Deletes the kept features of other records than these, but for those that another process is computing."""
    for place in sorted(directory.iterdir()) if directory.is_dir() else ():
        facts = earlier.facts_of(place)
        if facts and facts['records'] != records.fingerprint:
            with contextlib.suppress(BlockingIOError), locks.held(place / 'lock', _leave):
                for path in place.glob('progress-*-of-*.json'):
                    path.unlink()
                for name in NAMES:
                    (place / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Something else lies there, or the other process' files.
                place.rmdir()


def _leave(pid: str) -> None:
    raise BlockingIOError


def _make_durable(file) -> None:
    file.flush()
    files.sync(file.fileno(), file.name)


def _megabytes(size: int) -> str:
    return f'{math.ceil(size / 1e6):,} MB'
