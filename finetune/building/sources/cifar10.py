"""CIFAR-10 in binary batches: a byte for the label, then 32x32 red, green and blue pixels; any number of records."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finetune.building.sources.pixels import Row, SmallPictures
from finetune.console.errors import Error
from finetune.console.terminal import printable
from finetune.records.dataset import BACKGROUND

CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
SHAPE = (32, 32, 3)
RECORD_BYTES = 1 + 32 * 32 * 3
NAMES = {  # Of the files, where a folder is given.
    'train': 'data_batch_*.bin', 'validation': 'test_batch.bin', 'test': 'test_batch.bin'}
PICKLE = b'\x80'  # The first byte of one; no label is so large.
BINARY = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'


def source(path: str | Path, split: str, flag: str) -> SmallPictures:
    """The pictures of a file, or of the files for `split` in a folder. Raises Error."""
    files = _files(Path(path), split, flag)
    rows = {file: list(_rows(file)) for file in files}
    return SmallPictures(Path(path), (BACKGROUND, *CLASSES), SHAPE, rows)


def _files(path: Path, split: str, flag: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(NAMES[split]))
    if not files and any(path.glob('data_batch_[1-5]')):
        raise _pickled(path)
    if not files:
        raise Error(f'--{flag}={printable(path)} holds no {NAMES[split]}. The binary version is at {BINARY}.')
    return files


def _rows(path: Path) -> Iterator[Row]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Error(f'{printable(path)}: {error.strerror}. --source=cifar10 reads binary batches: {BINARY}.') from None
    if data.startswith(PICKLE):
        raise _pickled(path)
    whole, rest = divmod(len(data), RECORD_BYTES)
    if rest or not whole:
        raise Error(f'{printable(path)} has {len(data)} bytes, no multiple of {RECORD_BYTES}: the record at byte '
                    f'{whole * RECORD_BYTES} is cut short. Fetch it again.')
    for number in range(whole):
        offset = number * RECORD_BYTES
        label = data[offset]
        if label >= len(CLASSES):
            raise Error(f'{printable(path)}: the record at byte {offset} has label {label}, expected 0 to '
                        f'{len(CLASSES) - 1}. Fetch it again.')
        planes = np.frombuffer(data, np.uint8, RECORD_BYTES - 1, offset + 1).reshape(3, 32, 32)
        yield Row(label + 1, number, planes.transpose(1, 2, 0).tobytes())


def _pickled(path: Path) -> Error:
    return Error(f'{printable(path)} is the "python" version of CIFAR-10: pickles, which can run any program when '
                 f'they are opened, and are not read here. Take the binary version: {BINARY}.')
