"""Records that were damaged after they were written: R8."""

import os
from collections.abc import Iterator
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.records import dataset
from tests import toy_records
from tools.torture import together, unless


def every_byte(place: Path, seed: int, count: int, step: int = 1) -> Iterator[str]:
    """Every byte of two shards and of dataset.json with one bit turned, and every file cut at every length.

    What a reader gets before it notices must be what was written. `step` leaves bytes out.
    """
    directory = toy_records.write(place / 'records', train=4, validation=0, size=8, seed=seed)
    files = [*dataset.open_records(directory).paths('train'), os.fsencode(directory / dataset.MANIFEST)]
    yield from together(*(_damaged(directory, Path(os.fsdecode(file)), seed, step) for file in files))


def _damaged(directory: Path, file: Path, seed: int, step: int) -> Iterator[str]:
    whole, good = file.read_bytes(), list(_read(directory))
    for position in range(seed % step, len(whole), step):
        turned = whole[position] ^ 1 << position % 8
        yield _noticed(directory, file, whole[:position] + bytes([turned]) + whole[position + 1:], good, position)
        yield _noticed(directory, file, whole[:position], good, position)
    file.write_bytes(whole)


def _noticed(directory: Path, file: Path, content: bytes, good: list, position: int) -> str:
    file.write_bytes(content)
    read = []
    try:
        for record in _read(directory):
            read.append(record)
    except Error as error:
        return unless(file.name in str(error), f'{file.name} at {position}: said {error}')
    except tf.errors.DataLossError:
        return unless(read == good[:len(read)], f'{file.name} at {position}: a damaged record came through')
    same = file.name == dataset.MANIFEST and read == good  # A number that no reader needs.
    return unless(same, f'{file.name} at {position}: silent')


def _read(directory: Path) -> Iterator[bytes]:
    """What a verb does: open, check, then read to the end."""
    opened = dataset.open_records(directory)
    yield opened.labels
    yield from tf.data.TFRecordDataset(opened.paths('train')).as_numpy_iterator()


