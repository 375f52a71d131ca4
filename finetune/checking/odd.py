"""Odd pictures: blurred, dark, bright, empty, tiny, extreme in shape, or like no class at all."""

from collections.abc import Iterator

import numpy as np

from finetune.checking.album import Album
from finetune.checking.findings import Finding

DARK, BRIGHT = 0.16, 0.85  # Nearly all of a dark picture is below the one, nearly all of a bright one above the other.
UNIFORM = 0.008  # Deviation of light and of each colour, of 1.
BLURRED = 0.09  # Sharpness; flowers lie around 0.85, and blurred over 4 pixels between 0.02 and 0.09.
FAR = 4.0  # Robust deviations from the middle, which an odd picture lies away besides, so that a style is no oddity.
EXTREME_SHAPE = 3.0  # The long side to the short one, and as many times the usual.
TINY = 0.25  # Of the side that the network looks at, and of the usual picture.
FEW = 10  # Pictures, below which a class has no middle.
AS_DEVIATION = 1.4826  # The median distance from the median is that part of a normal distribution's deviation.


def at_a_glance(album: Album, image_size: int) -> Iterator[Finding]:
    """What the eye sees first; the score is how far beyond the bound it lies, 0.5 at the bound."""
    seen = album.glimpses
    if not len(seen):
        return
    empty = np.maximum(seen['contrast'], seen['colour'])
    sharpness = np.log(seen['sharpness'] + 1e-4)
    blurred = np.exp(np.minimum(np.log(BLURRED), _low(sharpness)))
    sides = np.stack([seen['height'], seen['width']])
    shape, short = sides.max(axis=0) / sides.min(axis=0), sides.min(axis=0)
    tiny = TINY * min(image_size, float(np.median(short)))
    is_empty = empty < UNIFORM
    for kind, how_far, suggestion in (
        ('uniform', UNIFORM / np.maximum(empty, 1e-6), 'nearly one colour: is there anything to be seen?'),
        ('dark', np.where(is_empty, 0, DARK / np.maximum(seen['bright_end'], 1e-6)), 'brighten it or take it out'),
        ('bright', np.where(is_empty, 0, seen['dark_end'] / BRIGHT), 'darken it or take it out'),
        ('blurred', np.where(is_empty, 0, blurred / (seen['sharpness'] + 1e-4)), 'does it still show its class?'),
        ('tiny', tiny / short, f'the network looks at {image_size} pixels: find a larger copy'),
        ('shape', shape / (EXTREME_SHAPE * max(1.0, float(np.median(shape)))), 'crop it to what matters'),
    ):
        for place in np.flatnonzero(how_far > 1).tolist():
            yield Finding(kind, _sure(how_far[place]), suggestion, (place,))


def outliers(rows: np.ndarray, labels: np.ndarray, members: np.ndarray, asked: np.ndarray) -> Iterator[Finding]:
    """Pictures whose features are far from the mean of every class, their own without them.

    `rows` float32 [n, c] of length 1; `members` are their places in the album; `asked` are those to say it of.
    """
    occurring, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(occurring), rows.shape[1]), np.float32)
    np.add.at(sums, own, rows)
    squares = np.einsum('kc,kc->k', sums, sums)
    products = rows @ sums.T
    alike = products / np.sqrt(np.maximum(squares, 1e-9))
    mine = products[np.arange(len(own)), own]  # Rows have length 1: without the picture itself it is 1 less.
    alike[np.arange(len(own)), own] = (mine - 1) / np.sqrt(np.maximum(squares[own] - 2 * mine + 1, 1e-9))
    angle = np.arccos(np.clip(alike.max(axis=1), -1, 1))  # Spread evenly about its middle, as a cosine is not.
    for number in np.flatnonzero(counts >= FEW):
        of_class = np.flatnonzero(own == number)
        bound = -_low(-angle[of_class])
        for row in of_class[(angle[of_class] > bound) & asked[of_class]].tolist():
            how_far = 1 + 10 * float(angle[row] - bound)
            yield Finding('outlier', _sure(how_far), 'unlike all others: does it belong here?', (int(members[row]),))


def _low(values: np.ndarray) -> float:
    """What lies far below the middle of the values."""
    middle = np.median(values)
    return float(middle - FAR * AS_DEVIATION * np.median(np.abs(values - middle)))


def _sure(how_far: float) -> float:
    """0.5 at the bound of 1, towards 1 far beyond it."""
    return float(1 - 0.5 / max(how_far, 1.0))
