"""Pictures of results: the confusion matrix, and the mistakes side by side. Drawn with Pillow."""

import functools
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from finetune.console.terminal import printable

INK, FAINT, PAPER = (33, 37, 41), (173, 181, 189), (255, 255, 255)
RIGHT, WRONG = np.array((25, 113, 194)), np.array((224, 49, 49))  # Full colour: all records of a class.
FONTS = ('DejaVuSans.ttf', 'NotoSans-Regular.ttf', 'Arial.ttf', 'LiberationSans-Regular.ttf')
MATRIX_SIDE = 1200  # Pixels that the cells of a confusion matrix share.
TILE = 160  # Pixels: the side of one thumbnail.


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # Not on this machine.
            pass
    return ImageFont.load_default(size)  # Comes with Pillow; ASCII only.


@functools.cache
def _can_draw(character: str) -> bool:
    font = _font(12)
    return character == ' ' or bytes(font.getmask(character)) != bytes(font.getmask('\uffff'))


def name_of(label: str, number: int) -> str:
    """The label where the font at hand has its characters, else 'class 7', which labels.txt explains."""
    return printable(label) if all(map(_can_draw, printable(label))) else f'class {number}'


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    kept = next(n for n in range(len(text), -1, -1) if font.getlength(text[:n] + '...') <= width or n == 0)
    return text[:kept] + '...'


def confusion(counts: np.ndarray, names: Sequence[str], title: str) -> Image.Image:
    """A matrix with a row for every true class: blue is right, red is wrong, full colour is all of a row.

    `counts[true, answered]`; numbers and names are drawn while the cells are large enough to hold them.
    """
    cell = int(np.clip(MATRIX_SIDE // len(names), 2, 64))
    font = _font(int(np.clip(cell * 0.6, 8, 16)))
    named = cell >= 12
    margin = min(36 + (math.ceil(max(map(font.getlength, names))) if named else 0), 320)
    side = cell * len(names)
    width = 48 + max(margin + side - 24, math.ceil(_font(18).getlength(title)))
    image = Image.new('RGB', (width, 96 + margin + side), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((24, 24), title, INK, _font(18))
    left, top = margin, 72 + margin
    image.paste(_colored(counts).resize((side, side), Image.Resampling.NEAREST), (left, top))
    if named:
        _write_names(image, names, font, (left, top), cell)
    else:
        pen.text((left, top - 24), 'answered (in the order of labels.txt)', INK, _font(14))
    if cell >= 24:
        _write_counts(pen, counts, font, (left, top), cell)
    pen.rectangle((left - 1, top - 1, left + side, top + side), outline=FAINT)
    return image


def _colored(counts: np.ndarray) -> Image.Image:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    full = np.where(np.eye(len(counts), dtype=bool)[..., None], RIGHT, WRONG)
    # The square root shows single mistakes too: 1 of 100 has a tenth of the colour.
    return Image.fromarray((255 + (full - 255) * np.sqrt(share)[..., None]).round().astype(np.uint8))


def _write_names(image, names: Sequence[str], font, corner: tuple[int, int], cell: int) -> None:
    pen = ImageDraw.Draw(image)
    left, top = corner
    room = left - 36
    for i, name in enumerate(_shortened(name, font, room) for name in names):
        middle = i * cell + cell // 2
        pen.text((left - 10, top + middle), name, INK, font, anchor='rm')
        upright = Image.new('L', (room, cell))
        ImageDraw.Draw(upright).text((0, cell // 2), name, 255, font, anchor='lm')
        upright = upright.transpose(Image.Transpose.ROTATE_90)
        image.paste(INK, (left + i * cell, top - 10 - room), upright)
    small = _font(12)
    pen.text((left - 10, top - 10), 'true \\ answered', FAINT, small, anchor='rb')


def _write_counts(pen, counts: np.ndarray, font, corner: tuple[int, int], cell: int) -> None:
    left, top = corner
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row, column in np.argwhere(counts).tolist():
        ink = PAPER if share[row, column] > 0.3 else INK
        center = (left + column * cell + cell // 2, top + row * cell + cell // 2)
        pen.text(center, str(counts[row, column]), ink, font, anchor='mm')


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet and the lines below it."""

    picture: Image.Image  # A `thumbnail`.
    lines: Sequence[str]


def thumbnail(encoded: bytes) -> Image.Image:
    """The picture of a record, small enough for a tile; of a JPEG no more than that is decoded or kept."""
    return small(Image.open(io.BytesIO(encoded), formats=['JPEG', 'PNG']))


def small(image: Image.Image) -> Image.Image:
    image.thumbnail((TILE, TILE))
    return image.convert('RGB')


def contact_sheet(tiles: Sequence[Tile], title: str, columns: int = 6) -> Image.Image:
    """The pictures side by side, whole and in proportion, each with its lines of text."""
    font, gap, line_height = _font(13), 16, 18
    columns = min(columns, max(len(tiles), 2))
    row_height = TILE + line_height * max((len(tile.lines) for tile in tiles), default=0) + gap
    rows = -(-len(tiles) // columns)
    image = Image.new('RGB', (gap + columns * (TILE + gap), 56 + rows * row_height), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((gap, 16), _shortened(title, _font(18), image.width - 2 * gap), INK, _font(18))
    for tile, (row, column) in zip(tiles, itertools.product(range(rows), range(columns)), strict=False):
        left, top = gap + column * (TILE + gap), 56 + row * row_height
        image.paste(tile.picture, (left, top + TILE - tile.picture.height))
        for number, line in enumerate(tile.lines):
            place = (left, top + TILE + 4 + number * line_height)
            pen.text(place, _shortened(line, font, TILE), INK, font)
    return image
