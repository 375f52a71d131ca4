"""Pictures so small that they are stored without loss, as PNG: at 32x32 a JPEG's errors cost accuracy."""

import collections
import hashlib
import io
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from finetune.building.sources import LabeledImage, Loaded
from finetune.console.terminal import printable


class Row(NamedTuple):
    """One picture as a file holds it."""

    label: int  # 1..N.
    number: int  # The line, or the record, that it stands in.
    pixels: bytes


@dataclass(frozen=True)
class PixelLoader:
    """A `Loader` whose keys are the pixels themselves, [h, w] or [h, w, 3] of a byte each."""

    shape: tuple[int, ...]
    format = 'PNG'

    def load(self, key: bytes) -> Loaded:
        return stored(Image.fromarray(np.frombuffer(key, np.uint8).reshape(self.shape)))


def stored(image: Image.Image) -> Loaded:
    """Of a grey or an RGB picture."""
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    return Loaded(buffer.getvalue(), image.height, image.width, hashlib.sha256(image.tobytes()).digest())


class SmallPictures:
    """Pictures that fit into memory, from one file or several. A `Source`."""

    skipped = ()

    def __init__(self, where: Path, labels: Sequence[str], shape: tuple[int, ...], rows: dict[Path, Sequence[Row]]):
        """`rows` holds those of each file."""
        self.where = printable(where)
        self.loader = PixelLoader(shape)
        self.ignored = collections.Counter()
        self._labels = labels
        self._directory = os.fsencode(next(iter(rows)).parent)
        self._rows = [(os.fsencode(path.name), row) for path, found in rows.items() for row in found]
        counts = collections.Counter(row.label for _, row in self._rows)
        self.per_label = [counts[label] for label in range(len(labels))]

    def images(self, seed: int) -> Iterator[LabeledImage]:
        """Each is called CLASS/FILE:NUMBER."""
        order = list(range(len(self._rows)))
        random.Random(seed).shuffle(order)
        for index in order:
            file, row = self._rows[index]
            name = b'%s/%s:%d' % (self._labels[row.label].encode(), file, row.number)
            yield LabeledImage(row.label, name, row.pixels)

    def path(self, image: LabeledImage) -> bytes:
        return self._directory + b'/' + image.filename.partition(b'/')[2]

    def stored_bytes(self) -> int:
        return 0

    def remarks(self) -> Iterator[str]:
        return iter(())
