"""Pictures of 16 bits a band: both bytes of every value, of which 8 bits are made."""

import functools
import hashlib
import sys
from typing import NamedTuple

from PIL import Image, ImageChops

from finetune.pictures import decoders, digests, png

DARK_LEVELS = 32  # Of 256. A picture that stays below has an eighth of the levels at most, and looks black.
LOW_BYTES = {2: 'RGBA', 3: 'RGB;16L', 4: 'RGBA;16L'}  # By samples: Pillow's name for an order of bytes in a 16-bit PNG.


class SixteenBits(NamedTuple):
    """What Pillow has no mode for but with one band."""

    bands: list[Image.Image]  # Of colour, with both of their bytes.
    alpha: Image.Image | None = None  # The high bytes of how opaque it is.
    transparent: tuple[int, ...] = ()  # The one value, of each band, that is not seen.


def of_png(image: Image.Image, parsed: png.Png) -> SixteenBits:
    """Of grey alone Pillow reads both bytes, of everything else the high ones; told another order, the low ones."""
    transparent = image.info.get('transparency', ())  # One value a band; of grey Pillow gives it bare.
    transparent = (transparent,) if isinstance(transparent, int) else transparent
    if parsed.samples == 1:
        return of_grey(image, transparent)
    again = decoders.opened(parsed.critical, 'PNG')
    again.tile = [tile._replace(args=LOW_BYTES[parsed.samples]) for tile in again.tile]
    decoders.load(again)
    if parsed.samples == 2:
        high, low, alpha, _ = again.split()
        return SixteenBits([_both_bytes(low, high)], alpha, transparent)
    return _of_colours(low=again, high=image)._replace(transparent=transparent)


def of_grey(image: Image.Image, transparent: tuple[int, ...] = ()) -> SixteenBits:
    grey = image.convert('I').convert('I;16') if image.mode == 'I;16B' else image.convert('I;16')  # Else it is clipped.
    grey.info = {}  # Else it goes with all that is made of it, and 8 bits are looked through for a 16-bit value.
    return SixteenBits([grey], transparent=transparent)


def of_tiff(image: Image.Image, data: bytes) -> SixteenBits | None:
    """None where only the high bytes can be had: of CMYK, and of colours that are multiplied with their alpha."""
    if image.mode.startswith('I'):
        return of_grey(image)
    again = decoders.opened(data, 'TIFF')
    if not again.tile[0].args[0].startswith(('RGB;16', 'RGBX;16', 'RGBA;16')):
        return None
    again.tile = [tile._replace(args=(_other_order(tile.args[0]), *tile.args[1:])) for tile in again.tile]
    decoders.load(again)
    return _of_colours(low=again, high=image)


def _other_order(rawmode: str) -> str:
    """Pillow's name of an order of bytes in which their low ones pass for the high ones. N is that of the machine."""
    order = {'L': 'B', 'B': 'L', 'N': 'B' if sys.byteorder == 'little' else 'L'}[rawmode[-1]]
    return rawmode[:-1] + order


def _of_colours(low: Image.Image, high: Image.Image) -> SixteenBits:
    bands = [_both_bytes(*both) for both in zip(low.split()[:3], high.split()[:3], strict=True)]
    return SixteenBits(bands, high.getchannel('A') if high.mode == 'RGBA' else None)


def _both_bytes(low: Image.Image, high: Image.Image) -> Image.Image:
    return Image.frombytes('I;16', low.size, Image.merge('LA', (low, high)).tobytes())


def in_eight_bits(sixteen: SixteenBits, white: int) -> Image.Image:
    """Scaled so that the value `white` comes out white; so does the one value that is transparent, as on white."""
    wide = [band.convert('I') for band in sixteen.bands]
    scaled = [band.point(_scale(white), 'L') for band in wide]
    if sixteen.transparent:
        masks = [band.point(_only(value), 'L') for band, value in zip(wide, sixteen.transparent, strict=True)]
        for band in scaled:
            band.paste(255, mask=functools.reduce(ImageChops.darker, masks))
    opaque = {1: 'L', 3: 'RGB'}[len(scaled)]
    alpha = sixteen.alpha
    return Image.merge(opaque, scaled) if alpha is None else Image.merge(opaque + 'A', (*scaled, alpha))


@functools.lru_cache(maxsize=2)
def _scale(white: int) -> list[int]:
    """For `Image.point`: the 8 bits of each 16-bit value. With 65,535 as white they are its high byte."""
    return [min(255, value * 256 // (white + 1)) for value in range(1 << 16)]


def _only(value: int) -> list[int]:
    """For `Image.point`: 255 where a band has this value."""
    return [255 * (other == value) for other in range(1 << 16)]


def notes_on(sixteen: SixteenBits, white: int) -> list[str]:
    highest = max(band.getextrema()[1] for band in sixteen.bands)
    notes = ['scaled_to_8_bit'] + ['alpha_flattened'] * bool(sixteen.transparent)
    notes += ['clipped_16_bit'] * (highest > white)
    if highest and _scale(white)[highest] < DARK_LEVELS:
        notes += ['dark_16_bit', f'uses_{highest.bit_length()}_of_16_bits']
    return notes


def digest(sixteen: SixteenBits, turn) -> bytes:
    """Of all bits: many pictures may come out as one black."""
    bands = [*sixteen.bands, *filter(None, [sixteen.alpha])]
    each = [digests.of_pixels(band, turn) for band in bands]
    return hashlib.sha256(b''.join(each) + repr(sixteen.transparent).encode()).digest()
