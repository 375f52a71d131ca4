"""PDQ: 256 bits that stay nearly the same when a picture is saved again, shrunk, recoloured or brightened.

After Meta's public description ("The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019):
luminance, a tent filter down to 64 x 64, the lowest 16 x 16 waves without the constant, each above their median or not.
Pillow's tent is centred, where the description's lies up to half a pixel aside: so bits of halved pictures differ by 1
where they differed by 20, and a mirror's are known without another look; but they are not those of other programs.
"""

import functools

import numpy as np
from PIL import Image

SIDE, WAVES, BITS = 64, 16, 256
ENOUGH_QUALITY = 50  # Of 100, the description's own bound: below it a picture shows so little that the bits are noise.
MIRRORED = np.where(np.arange(1, WAVES + 1) % 2, -1, 1)  # What a mirror does to the waves across.


def hashes(gray: Image.Image) -> tuple[np.ndarray, np.ndarray, int]:
    """(bits, bits of the mirrored picture, quality 0 to 100) of a picture of mode 'L'; bits are bool [256]."""
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    waves = _cosines() @ small @ _cosines().T
    return _above_median(waves), _above_median(waves * MIRRORED), _quality(small)


def _above_median(waves: np.ndarray) -> np.ndarray:
    return (waves > np.median(waves)).ravel()


def _quality(small: np.ndarray) -> int:
    """How much the picture changes from place to place, in the description's scale."""
    steps = sum(np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum() for axis in (0, 1))
    return int(min(100, steps // 90))


@functools.cache
def _cosines() -> np.ndarray:
    """[16, 64]: the waves of a discrete cosine transform, without the constant."""
    waves, places = np.arange(1, WAVES + 1)[:, None], np.arange(SIDE)[None, :]
    return (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * waves * (2 * places + 1))).astype(np.float32)
