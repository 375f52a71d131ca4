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
