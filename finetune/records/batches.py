"""Batches of records: {'image': float32 [b, size, size, 3] in [0, 1], 'label': int32 [b], 'filename': string [b]}."""

from collections.abc import Sequence

import numpy as np

from finetune.console.lazy import tf
from finetune.pictures.mixing import Mixing, mixed, partners
from finetune.pictures.views import Distortion, decode, distort, view
from finetune.records import examples, stored
from finetune.records.dataset import Split

SHUFFLE_BYTES = 512 * 2**20  # The most memory that undecoded pictures wait in to be shuffled.
SHUFFLE_RECORDS = 16_384


def for_evaluation(
    records_, split: str, image_size: int, crop_fraction: float, batch_size: int, threads: int | None = None,
    part: tuple[int, int] | None = None,
):
    """Every record of the split once, in the order of the shards; the last batch may be smaller.

    With `part`, the records from its first number to before its second.
    """
    def picture(serialized):
        example = examples.parse(serialized)
        return _batch_item(view(decode(example['encoded']), image_size, crop_fraction), example)

    dataset = _part(records_, split, *part) if part else tf.data.TFRecordDataset(records_.paths(split))
    dataset = dataset.map(picture, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _part(records_, split: str, first: int, end: int):
    """Serialized records; shards that hold none of these are not opened."""
    paths, before, skipped = [], 0, 0
    for shard, path in zip(records_.split(split).shards, records_.paths(split), strict=True):
        if before < end and before + shard.records > first:
            skipped = skipped if paths else first - before
            paths.append(path)
        before += shard.records
    return tf.data.TFRecordDataset(paths).skip(skipped).take(end - first)


def for_training(
    records_,
    split: str,
    image_size: int,
    distortion: Distortion,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    threads: int | None = None,
    machine: tuple[int, int] = (0, 1),
    towers: int = 1,
    mixing: Mixing | None = None,
):
    """Full batches without end, from the one that step `first_step` uses on.

    Every epoch is every record once, in an order that (seed, epoch) alone decides; the distortion of a picture is
    decided by (seed, epoch, its place in the epoch). So any step's batch can be made again without the steps before it.

    With `mixing`, 'other' is the label of the picture that each is mixed with, and 'share' what it keeps of its own.
    Machine (i, n) of n gets the i-th n-th of every batch, `towers` batches for it: all together get what one would.
    """
    index, machines = machine

    def picture(view_seed, numbered):
        place, serialized = numbered
        example = examples.parse(serialized)
        image = distort(decode(example['encoded']), image_size, distortion, tf.stack([view_seed, place]))
        # A seed is a hash, and so the one after it another one.
        return _batch_item(image, example) | ({'seed': tf.stack([view_seed + 1, place])} if mixing else {})

    def pictures_of(epoch):
        first_place = tf.where(epoch == first_epoch, first_step * batch_size % counted.records, 0)
        view_seeds = tf.data.Dataset.from_tensors(_seed(seed, 0, epoch)).repeat()
        return tf.data.Dataset.zip(view_seeds, _epoch(counted, paths, seed, epoch, first_place))

    counted, paths = records_.split(split), records_.paths(split)  # Here: in a graph, TensorFlow warns of os.fsencode.
    first_epoch = first_step * batch_size // counted.records
    # Repeat before batching: every batch is full, and no picture is left out.
    order = tf.data.Dataset.range(first_epoch, 2**62).flat_map(pictures_of)
    if machines > 1:  # The others' pictures are read, and not decoded.
        order = order.batch(batch_size // machines, drop_remainder=True).shard(machines, index).unbatch()
    dataset = order.map(picture, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size // machines // towers, drop_remainder=True)
    if mixing:
        dataset = dataset.map(lambda batch: _mixed(batch, mixing), num_parallel_calls=2, deterministic=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _mixed(batch: dict, mixing: Mixing) -> dict:
    images, shares = mixed(batch['image'], mixing, batch['seed'][::2])  # The first one's decides for both.
    return {'image': images, 'label': batch['label'], 'filename': batch['filename'],
            'other': partners(batch['label']), 'share': shares}


def of_all_views(
    records_,
    split: str,
    image_size: int,
    crop_fraction: float,
    views: int,
    distortion: Distortion,
    seed: int,
    batch_size: int,
    asked: np.ndarray,
    threads: int | None = None,
    mirrored: bool = False,
):
    """Every record that is asked for (`stored.only`), in the order of the shards; 'image' is [b, views, size, size, 3].

    View 0 is that of evaluation, view 1 its mirror image if they are to be `mirrored`; (seed, view, place of the
    record) decides the distortion of each of the others.
    """
    def picture(index, serialized):
        example = examples.parse(serialized)
        image = decode(example['encoded'])
        central = view(image, image_size, crop_fraction)
        shown = [central, tf.image.flip_left_right(central)] if mirrored else [central]
        for view_seed in view_seeds:
            shown.append(distort(image, image_size, distortion, tf.stack([view_seed, index])))
        return _batch_item(tf.stack(shown), example)

    view_seeds = [_seed(seed, 2, view) for view in range(1 + mirrored, views)]
    dataset = stored.only(tf.data.TFRecordDataset(records_.paths(split)), asked)
    dataset = dataset.map(picture, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _epoch(split: Split, paths: Sequence[bytes], seed: int, epoch, first_place):
    """(place, serialized record) of every record from a place on, shuffled: the shards, then blocks of what memory
    holds.
    """
    epoch_seed = tf.random.fold_in(tf.constant([seed, 1], tf.int64), epoch)
    files = tf.random.experimental.stateless_shuffle(tf.constant(paths), epoch_seed)
    records = tf.data.Dataset.from_tensor_slices(files).interleave(tf.data.TFRecordDataset, cycle_length=16)
    first_place, size = tf.cast(first_place, tf.int64), tf.constant(_records_in_memory(split), tf.int64)
    first_block = first_place // size
    # Skip before shuffling: of what comes before, the bytes are read, and no more. Not Dataset.shuffle: its order hangs
    # on TensorFlow's global seed, and so on what ran before.
    blocks = records.skip(first_block * size).batch(size).enumerate(first_block)
    shuffled = blocks.map(lambda number, block: tf.random.experimental.stateless_shuffle(
        block, tf.random.fold_in(epoch_seed, number)))
    return shuffled.unbatch().skip(first_place % size).enumerate(first_place)


def _seed(seed: int, purpose: int, number):
    """A hash of all three. Beside the place of a picture, it makes the seed of what happens to that picture."""
    # fold_in hashes what it is given first and appends what comes second: so once more, and the first half counts.
    numbered = tf.random.fold_in(tf.constant([seed, purpose], tf.int64), tf.convert_to_tensor(number, tf.int64))
    return tf.random.fold_in(numbered, tf.constant(0, tf.int64))[0]


def _records_in_memory(split: Split) -> int:
    mean_bytes = sum(shard.bytes for shard in split.shards) / split.records
    return max(1, min(split.records, SHUFFLE_RECORDS, int(SHUFFLE_BYTES / mean_bytes)))


def _batch_item(image, example: dict) -> dict:
    return {'image': image, 'label': example['label'], 'filename': example['filename']}
