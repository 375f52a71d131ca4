"""Writes tf.Example records without TensorFlow, so that a build starts at once and its processes stay small.

Formats: https://protobuf.dev/programming-guides/encoding and tensorflow/core/lib/io/record_writer.h
"""

import functools
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from finetune.console import files

SHORT = 24  # Bytes.
_BYTES_LIST, _INT64_LIST = 1, 3  # The fields of tf.train.Feature.


def encode(features: dict[str, bytes | int]) -> bytes:
    """A serialized tf.train.Example. The keys stand in sorted order: the same features, the same bytes."""
    return _field(1, b''.join(_entry(key, features[key]) for key in sorted(features)))


def _entry(key: str, value: bytes | int) -> bytes:
    short = isinstance(value, int) or len(value) <= SHORT
    return _entry_seen_before(key, value) if short else _new_entry(key, value)


def _new_entry(key: str, value: bytes | int) -> bytes:
    """One entry of the map from names to features."""
    if isinstance(value, bytes):
        feature = _field(_BYTES_LIST, _field(1, value))
    else:
        feature = _field(_INT64_LIST, _field(1, _varint(value)))
    return _field(1, _field(1, key.encode()) + _field(2, feature))


_entry_seen_before = functools.lru_cache(maxsize=4096)(_new_entry)  # Sizes and labels come again and again.


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content  # 2: a length comes first.


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@dataclass(frozen=True)
class Shard:
    name: str
    records: int
    bytes: int
    sha256: str


class ShardWriter:
    """One TFRecord file. `close` makes it durable and says what it holds."""

    def __init__(self, path: Path):
        self.path = path
        self.records = 0
        self._bytes = 0
        self._hash = hashlib.sha256()
        self._file = path.open('xb', buffering=1 << 20)

    def write(self, record: bytes) -> None:
        length = struct.pack('<Q', len(record))
        for part in (length + _masked_crc(length), record, _masked_crc(record)):
            self._file.write(part)
            self._hash.update(part)
            self._bytes += len(part)
        self.records += 1

    def close(self) -> Shard:
        self._file.flush()
        files.sync(self._file.fileno(), self.path)
        self._file.close()
        return Shard(self.path.name, self.records, self._bytes, self._hash.hexdigest())

    def abandon(self) -> None:
        """Gives up the file without a word: it is about to be removed."""
        try:
            self._file.close()
        except OSError:  # The disk is full, and closing writes what was buffered.
            self._file.raw.close()


def _masked_crc(data: bytes) -> bytes:
    """TFRecord turns and shifts its CRC-32C, as it may be taken of bytes that hold such checksums."""
    crc = google_crc32c.value(data)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
