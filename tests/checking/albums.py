"""Albums of drawn pictures, without records."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from finetune.checking import album
from finetune.checking.album import Album
from tests import toy


def of(pictures: Sequence[bytes], labels: Sequence[int] | None = None, splits: Sequence[str] | None = None) -> Album:
    """All in one class and in `train` unless it is said otherwise; they are called 0.jpg, 1.jpg, …"""
    labels = list(labels or [1] * len(pictures))
    splits = list(splits or ['train'] * len(pictures))
    names = tuple(dict.fromkeys(splits))
    class_names = ('background', *(f'class_{number}' for number in range(1, max(labels) + 1)))
    return Album(
        names, class_names, np.array([names.index(split) for split in splits]), np.array(labels),
        [f'{class_names[label]}/{number}.jpg'.encode() for number, label in enumerate(labels)],
        np.array([album.look(picture) for picture in pictures]))


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Noise at several scales: as different from any other, and as full of detail, as a photo."""
    random = np.random.default_rng(seed)
    whole = np.zeros((size[1], size[0], 3), np.float32)
    for scale, weight in ((40, 0.5), (12, 0.3), (3, 0.2)):
        coarse = random.integers(0, 256, (size[1] // scale + 1, size[0] // scale + 1, 3), np.uint8)
        whole += weight * np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray(whole.astype(np.uint8))


def saved(image: Image.Image, quality: int = 90, **options) -> bytes:
    return toy.encoded(image, quality=quality, **options)
