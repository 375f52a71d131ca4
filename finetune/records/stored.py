"""What records hold, picture by picture, without decoding one: so that what is known of a picture is found again."""

import hashlib
from typing import NamedTuple

import numpy as np

from finetune.console.lazy import tf
from finetune.records import examples
from finetune.records.dataset import Records

DIGEST = np.dtype('V16')  # Of a picture's encoded bytes.
AT_A_TIME = 64


class Stored(NamedTuple):
    """Of every record of a split, in the order of the shards."""

    digests: np.ndarray  # DIGEST [n]: equal for equal bytes, in whatever records, split or class they stand.
    labels: np.ndarray  # int32 [n]
    filenames: list[bytes]  # CLASS/NAME


def read(data: Records, split: str) -> Stored:
    """Reads every record of a split once; a gigabyte takes some seconds."""
    digests, labels, filenames = [], [np.zeros(0, np.int32)], []
    parsed = tf.data.TFRecordDataset(data.paths(split)).map(examples.parse)
    for batch in parsed.batch(AT_A_TIME).prefetch(1).as_numpy_iterator():
        digests += (hashlib.blake2b(encoded, digest_size=DIGEST.itemsize).digest() for encoded in batch['encoded'])
        labels.append(batch['label'])
        filenames.extend(batch['filename'])
    return Stored(np.frombuffer(b''.join(digests), DIGEST), np.concatenate(labels), filenames)


def only(dataset, asked: np.ndarray):
    """(place, element) of those elements of a dataset that are asked for, bool [n].

    What there is beyond the n is given too, so that it is noticed.
    """
    is_asked = tf.pad(asked, [[0, 1]], constant_values=True)
    return dataset.enumerate().filter(lambda place, _: tf.gather(is_asked, tf.minimum(place, len(asked))))


def find(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each of the digests stands among others, int [n]; -1 for one that does not."""
    one_each, inverse = np.unique(digests, return_inverse=True)
    _, ours, theirs = np.intersect1d(one_each, among, return_indices=True)
    places = np.full(len(one_each), -1)
    places[ours] = theirs
    return places[inverse.ravel()]
