"""Where a network looked, as pictures: what made it answer is bright and in colour, the rest dim and grey."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from finetune.evaluation import drawings
from finetune.models import activation
from finetune.pictures import views

DIM = 0.35  # Of the light, where nothing spoke for the answer.
OUTLINED = 0.5  # Of the strongest: what is above it has a line around it.


WHERE = ('upper left', 'top', 'upper right'), ('left', 'middle', 'right'), ('lower left', 'bottom', 'lower right')


@dataclass(frozen=True)
class Look:
    view: Image.Image  # What the network saw: the middle of the picture.
    where: Image.Image
    words: str  # One of WHERE.


def looks(
    model, image_size: int, crop_fraction: float, encoded: Sequence[bytes], classes: Sequence[int], among: Sequence[int]
) -> list[Look] | None:
    """What spoke for each class in each picture, out of those that may be answered; None where the network does not
    know of places.
    """
    if not encoded:
        return []
    seen = np.stack([views.view(views.decode(each), image_size, crop_fraction) for each in encoded])
    maps = activation.maps(model, seen, np.asarray(classes), among)
    return None if maps is None else [look(*pair) for pair in zip(seen, maps, strict=True)]


def look(view: np.ndarray, spoke: np.ndarray, side: int = drawings.TILE) -> Look:
    """Of what the network saw, float32 [size, size, 3] in [0, 1], and what spoke for something there, [h, w]."""
    picture = Image.fromarray((view * 255).round().astype(np.uint8)).resize((side, side), Image.Resampling.LANCZOS)
    strength = np.maximum(spoke, 0) / max(spoke.max(), 1e-9)
    smooth = np.asarray(Image.fromarray(strength.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    smooth = np.clip(smooth, 0, 1)[..., None]
    pixels = np.asarray(picture, np.float32)
    gray = DIM * np.asarray(picture.convert('L'), np.float32)[..., None]
    shown = gray + (pixels - gray) * smooth
    inside = smooth[..., 0] > OUTLINED
    shown[_edge(~inside)], shown[_edge(inside)] = 0, 255  # A black line by a white one is seen on any ground.
    return Look(picture, Image.fromarray(shown.round().astype(np.uint8)), _in_words(strength))


def _edge(inside: np.ndarray) -> np.ndarray:
    """bool [h, w]: the places inside that have a neighbour outside."""
    framed = np.pad(inside, 1, mode='edge')
    return inside & ~(framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:])


def _in_words(strength: np.ndarray) -> str:
    """Where it is strongest."""
    row, column = ((place + 0.5) / size for place, size in zip(
        np.unravel_index(strength.argmax(), strength.shape), strength.shape, strict=True))
    return WHERE[min(int(3 * row), 2)][min(int(3 * column), 2)]
