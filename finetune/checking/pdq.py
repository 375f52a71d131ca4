"""PDQ: 256 bits that stay nearly the same when a picture is saved again, shrunk, recoloured or brightened.

After Meta's public description ("The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019):
luminance, a tent filter down to 64 x 64, the lowest 16 x 16 waves without the constant, each above their median or not.
Pillow's tent is centred, where the description's lies up to half a pixel aside: so bits of halved pictures differ by 1
where they differed by 20, and a mirror's are known without another look; but they are not those of other programs.
A mirror turns every second wave across: their bits, which stand last here, become the opposite, but for a few of
waves that are nearly absent.
"""

import functools

import numpy as np
from PIL import Image

SIDE, WAVES, BITS = 64, 16, 256
ENOUGH_QUALITY = 50  # Of 100, the description's own bound: below it a picture shows so little that the bits are noise.
TURNED = BITS // 2  # So many bits, the last, are turned by a mirror.


def hashed(gray: Image.Image) -> tuple[np.ndarray, int]:
    """(bits bool [256], quality 0 to 100) of a picture of mode 'L'."""
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    waves = _cosines() @ small @ _cosines().T
    waves = np.concatenate([waves[:, 1::2], waves[:, ::2]], axis=1).T  # Across, the first wave is turned, the next not.
    return (waves > np.median(waves)).ravel(), _quality(small)


def _quality(small: np.ndarray) -> int:
    """How much the picture changes from place to place, in the description's scale."""
    steps = sum(np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)).sum() for axis in (0, 1))
    return int(min(100, steps // 90))


@functools.cache
def _cosines() -> np.ndarray:
    """[16, 64]: the waves of a discrete cosine transform, without the constant."""
    waves, places = np.arange(1, WAVES + 1)[:, None], np.arange(SIDE)[None, :]
    return (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * waves * (2 * places + 1))).astype(np.float32)
