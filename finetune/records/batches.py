"""Batches of records: {'image': float32 [b, size, size, 3] in [0, 1], 'label': int32 [b], 'filename': string [b]}."""

from collections.abc import Sequence

import numpy as np

from finetune.console.lazy import tf
from finetune.pictures.views import Distortion, decode, distort, view
from finetune.records import examples, stored
from finetune.records.dataset import Split

SHUFFLE_BYTES = 512 * 2**20  # The most memory that undecoded pictures wait in to be shuffled.
SHUFFLE_RECORDS = 16_384


def for_evaluation(
    records_, split: str, image_size: int, crop_fraction: float, batch_size: int, threads: int | None = None
):
    """Every record of the split once, in the order of the shards; the last batch may be smaller."""
    def picture(serialized):
        example = examples.parse(serialized)
        return _batch_item(view(decode(example['encoded']), image_size, crop_fraction), example)

    dataset = tf.data.TFRecordDataset(records_.paths(split))
    dataset = dataset.map(picture, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def for_training(
    records_,
    split: str,
    image_size: int,
    distortion: Distortion,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    threads: int | None = None,
):
    """Full batches without end, from the one that step `first_step` uses on.

    Every epoch is every record once, in an order that (seed, epoch) alone decides; the distortion of a picture is
    decided by (seed, epoch, its place in the epoch). So any step's batch can be made again without the steps before it.
    """
    def picture(view_seed, serialized):
        example = examples.parse(serialized)
        image = distort(decode(example['encoded']), image_size, distortion, view_seed)
        return _batch_item(image, example)

    counted, paths = records_.split(split), records_.paths(split)  # Here: in a graph, TensorFlow warns of os.fsencode.
    first_epoch, first_index = divmod(first_step * batch_size, counted.records)
    # Skip before decoding: it costs reading. Repeat before batching: every batch is full, and no picture is left out.
    order = tf.data.Dataset.range(first_epoch, 2**62).flat_map(lambda epoch: _epoch(counted, paths, seed, epoch))
    order = order.skip(first_index)
    dataset = order.map(picture, num_parallel_calls=threads or tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


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


def _epoch(split: Split, paths: Sequence[bytes], seed: int, epoch):
    """(seed of its view, serialized record) of every record, shuffled: the shards, then blocks of what memory holds."""
    epoch_seed = tf.random.fold_in(tf.constant([seed, 1], tf.int64), epoch)
    files = tf.random.experimental.stateless_shuffle(tf.constant(paths), epoch_seed)
    dataset = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset, cycle_length=16, num_parallel_calls=1, deterministic=True)
    # Not Dataset.shuffle: its order hangs on TensorFlow's global seed, and so on what ran before.
    blocks = dataset.batch(_records_in_memory(split)).enumerate()
    dataset = blocks.flat_map(lambda number, block: tf.data.Dataset.from_tensor_slices(
        tf.random.experimental.stateless_shuffle(block, tf.random.fold_in(epoch_seed, number))))
    view_seed = _seed(seed, 0, epoch)
    return dataset.enumerate().map(lambda index, serialized: (tf.stack([view_seed, index]), serialized))


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
