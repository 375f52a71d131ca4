"""Records of tiny pictures whose colour says their class, written without `finetune build`."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.records import dataset, examples

LABELS = ('background', 'red', 'green', 'blue')


def write(
    directory: Path, train: int = 24, validation: int = 7, labels=LABELS, size: int = 20, seed: int = 0, test: int = 0,
    format: str = 'JPEG',
) -> Path:
    """So many pictures a split, of labels 1.. in turn; a split of none is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    splits = [_write_split(directory, name, count, labels, size, seed, format) for name, count in
              (('train', train), ('validation', validation), ('test', test)) if count]
    content = dataset.manifest(labels, splits, format, {})
    (directory / dataset.MANIFEST).write_text(json.dumps(content))
    return directory


def _write_split(
    directory: Path, name: str, count: int, labels, size: int, seed: int, format: str
) -> dataset.Split:
    rng = np.random.default_rng([seed, len(name)])
    numbers = [1 + i % (len(labels) - 1) for i in range(count)]
    shards = []
    for index in range(2):
        writer = dataset.ShardWriter(directory / dataset.shard_name(name, index, 2))
        for i in range(index, count, 2):
            label = numbers[i]
            filename = f'{labels[label]}/{name}-{i}.jpg'.encode()
            writer.write(examples.encode_example(
                _encoded(label, size, rng, format), format, size, size, label, labels[label], filename))
        shards.append(writer.close())
    per_class = tuple(numbers.count(label) for label in range(len(labels)))
    return dataset.Split(name, count, per_class, tuple(shards))


def _encoded(label: int, size: int, rng, format: str) -> bytes:
    pixels = rng.integers(0, 120, (size, size, 3))
    pixels[..., label % 3] += 100
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, format, quality=90)
    return file.getvalue()
