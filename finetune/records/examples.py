"""One record: a tf.Example of one picture."""

from collections.abc import Container, Sequence

from finetune.console.lazy import tf
from finetune.records import tfrecord


def encode_example(
    encoded: bytes, format: str, height: int, width: int, label: int, text: str, filename: bytes
) -> bytes:
    """A serialized tf.train.Example of one picture. `format` is 'JPEG' or 'PNG'; `filename` is CLASS/NAME."""
    return tfrecord.encode({
        'image/encoded': encoded,
        'image/format': format.encode(),
        'image/height': height,
        'image/width': width,
        'image/channels': 3,  # What every reader decodes it to.
        'image/colorspace': b'RGB',
        'image/class/label': label,
        'image/class/text': text.encode(),
        'image/filename': filename,
    })


def parse(serialized) -> dict:
    """{'encoded': string, 'label': int32, 'filename': string} of a scalar string tensor; a graph operation.

    Picture and label have no default: a record without them is an error, not a class of its own.
    """
    example = tf.io.parse_single_example(serialized, {
        'image/encoded': tf.io.FixedLenFeature([], tf.string),
        'image/class/label': tf.io.FixedLenFeature([], tf.int64),
        'image/filename': tf.io.FixedLenFeature([], tf.string, default_value=''),
    })
    return {
        'encoded': example['image/encoded'],
        'label': tf.cast(example['image/class/label'], tf.int32),
        'filename': example['image/filename'],
    }


def encoded_at(paths: Sequence[str], places: Container[int]) -> dict[int, bytes]:
    """The stored pictures at these places of a split. Reads all of it, but decodes nothing."""
    stored = enumerate(tf.data.TFRecordDataset(paths).as_numpy_iterator()) if places else ()
    return {place: parse(record)['encoded'].numpy() for place, record in stored if place in places}
