"""One file's bytes become an upright RGB JPEG (or PNG), or a Reject(reason): the only judge of what a good picture is.

A file is judged by its content, never by its name; size and pixel count are
known from the header before any decoder runs; every picture is decoded to its last byte. A JPEG that is
already upright keeps its compressed bytes, without metadata and without what follows its end. Everything else
is encoded again: turned, on white where it is transparent, with 8 bits, in sRGB (a colour profile of another
kind is converted; one that makes no sense is dropped). Beside records without loss, that second encoding is PNG.
What AVIF, HEIC, TIFF and JPEG 2000 files claim is read here first, as their decoders have the worst record.
A digest says which picture it is, of files that differ only in what is not seen.
"""

import functools
import io
from dataclasses import dataclass

from PIL import Image

from finetune.console.errors import Reject
from finetune.pictures import boxes, colours, decoders, digests, formats, jpeg, png, sixteen_bits, tiff, webp

# On flowers: 1.7 times the bytes of the original and a mean error of 1.14 levels; 95 with 4:2:0 colour takes as
# many bytes for 1.19 levels.
SAVED = {'JPEG': {'quality': 92, 'subsampling': 0, 'comment': b''}, 'PNG': {}}
TINY_SIDE = 10
EXTREME_ASPECT = 20
SIXTEEN_BIT_MAX = (1 << 16) - 1

UPRIGHT = {  # What undoes each EXIF orientation.
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
STRAIGHT = {'RGBa': 'RGBA', 'La': 'LA'}  # By Pillow's modes of colours that are multiplied with their alpha.


@dataclass(frozen=True)
class Limits:
    max_bytes: int = 256 << 20
    max_pixels: int = 100_000_000
    max_side: int = 65_500


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Picture:
    encoded: bytes
    height: int
    width: int
    notes: tuple[str, ...]  # What was done to it, or is odd about it: 'exif_rotated', 'tiny', …
    digest: bytes  # Equal for equal pictures, whatever metadata or compression their files have and limits `admit` has.


def admit(
    data: bytes, limits: Limits = DEFAULT_LIMITS, max_side: int = 0, short_side: int = 0, format: str = 'JPEG',
    sixteen_bit_max: int = SIXTEEN_BIT_MAX
) -> Picture:
    """The picture, upright, in RGB; no side longer than `max_side`, the shorter one at most `short_side`.

    0 leaves the size alone; nothing is ever enlarged. What is encoded again becomes a `format`, JPEG or PNG. Of 16
    bits, the value `sixteen_bit_max` and what lies above come out white. Raises Reject.
    """
    kind = formats.sniff(data)
    judge = JUDGES.get(kind) or functools.partial(_admit_other, kind=kind)
    try:
        shrunk = functools.partial(_shrunk, max_side=max_side, short_side=short_side)
        return judge(data, limits, shrunk, functools.partial(_encode, format=format, white=sixteen_bit_max))
    except MemoryError:
        raise Reject('too_many_pixels', 'not enough memory to decode it') from None


def _admit_jpeg(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = jpeg.parse(data)
    size = (parsed.width, parsed.height)
    _check_size(size, limits)
    if parsed.rare_coding:
        raise Reject('unsupported_coding', f'{parsed.rare_coding} JPEG')
    turn = UPRIGHT.get(jpeg.orientation(parsed.exif))
    notes = ['first_frame'] * parsed.pictures_follow + ['converted_to_rgb'] * (parsed.components != 3)
    notes += ['stray_bytes'] * bool(parsed.stray_bytes)
    image = decoders.opened(parsed.stripped, 'JPEG')
    converted = colours.to_srgb(parsed.icc, image.mode) is not None
    plain = parsed.components != 4 and turn is None and not converted
    if plain and shrunk(size) == size:
        # One eighth of the size costs half the time of a full decode and still reads the stream to its end.
        if parsed.whole_sampling:
            image.draft('L', (1, 1))
        decoders.load(image)
        return Picture(
            parsed.stripped, parsed.height, parsed.width, tuple(notes + _odd_shape(size)), digests.of_jpeg(parsed))
    if shrunk(size) != size:
        notes.append('shrunk')
        image.draft(image.mode, shrunk(size))  # The decoder itself shrinks by 2, 4 or 8.
    decoders.load(image)
    return encode(image, shrunk(size), turn, parsed.icc, notes, digest=digests.of_jpeg(parsed, converted))


def _admit_png(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = png.parse(data)
    _check_size((parsed.width, parsed.height), limits)
    png.check_data(parsed)
    image = decoders.opened(parsed.critical, 'PNG')
    _check_judged(image, {(parsed.width, parsed.height)})
    decoders.load(image)
    notes, turn = ['first_frame'] * parsed.animated, UPRIGHT.get(jpeg.orientation(parsed.exif))
    sixteen = sixteen_bits.of_png(image, parsed) if parsed.depth == 16 else None
    return encode(image, shrunk(image.size), turn, parsed.icc, notes, sixteen=sixteen)


def _admit_tiff(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = tiff.parse(data)
    for size in filter(None, ((parsed.width, parsed.height), parsed.tile)):
        _check_size(size, limits)
    image = decoders.opened(data, 'TIFF')
    _check_judged(image, {(parsed.width, parsed.height), (parsed.height, parsed.width)})
    decoders.load(image)  # Which turns it upright, too.
    notes = ['first_frame'] * parsed.pages_follow + ['exif_rotated'] * (parsed.orientation in UPRIGHT)
    notes += ['scaled_to_8_bit'] * (parsed.depth == 16)
    sixteen = sixteen_bits.of_tiff(image, data) if parsed.depth == 16 else None
    return encode(image, shrunk(image.size), None, image.info.get('icc_profile'), notes, sixteen=sixteen)


def _admit_jpeg2000(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = boxes.codestream(data)
    _check_size((parsed.width, parsed.height), limits)
    image = decoders.opened(data, 'JPEG2000')
    _check_judged(image, {(parsed.width, parsed.height)})
    decoders.load(image)
    sixteen = sixteen_bits.of_grey(image) if image.mode.startswith('I') else None
    notes = ['scaled_to_8_bit'] * (parsed.depth > 8)
    return encode(image, shrunk(image.size), None, parsed.icc, notes, sixteen=sixteen)


def _admit_boxed(data: bytes, limits: Limits, shrunk, encode, kind: str) -> Picture:
    """AVIF and HEIC. What turns the picture is in `exif` where the decoder has not done so."""
    claimed = boxes.sizes(data)
    for size in sorted(claimed):
        _check_size(size, limits)
    image = decoders.opened(data, kind)
    several = decoders.has_more_frames(image)
    smaller = {(width, height) for width, height in (image.size, image.size[::-1])}
    if not any(width <= most_wide and height <= most_high
               for width, height in smaller for most_wide, most_high in claimed):
        raise Reject('corrupt', f'a picture that decodes to {image.width}x{image.height}, which it does not say')
    decoders.load(image)
    exif = (image.info.get('exif') or b'').removeprefix(b'Exif\0\0')
    turn = UPRIGHT.get(jpeg.orientation(exif))
    return encode(image, shrunk(image.size), turn, image.info.get('icc_profile'), ['first_frame'] * several)


def _admit_other(data: bytes, limits: Limits, shrunk, encode, kind: str) -> Picture:
    if kind == 'WEBP':
        _check_size(webp.size(data), limits)  # Pillow makes room for the whole canvas when it opens one.
    image = decoders.opened(data, kind)
    _check_size(image.size, limits)
    partial = any(tile[1] != (0, 0, *image.size) for tile in image.tile)  # A frame smaller than its canvas.
    decoders.load(image)
    notes = ['first_frame'] * (partial or decoders.has_more_frames(decoders.opened(data, kind)))
    exif = (image.info.get('exif') or b'').removeprefix(b'Exif\0\0')
    turn = UPRIGHT.get(jpeg.orientation(exif))
    sixteen = sixteen_bits.of_grey(image) if image.mode == 'I' else None  # Of a PGM, which Pillow has scaled.
    return encode(image, shrunk(image.size), turn, image.info.get('icc_profile'), notes, sixteen=sixteen)


JUDGES = {  # Of the formats whose size is known here before Pillow sees them.
    'JPEG': _admit_jpeg, 'PNG': _admit_png, 'TIFF': _admit_tiff, 'JPEG2000': _admit_jpeg2000,
    'AVIF': functools.partial(_admit_boxed, kind='AVIF'), 'HEIF': functools.partial(_admit_boxed, kind='HEIF'),
}


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if not 0 < min(size) <= max(size) < 1 << 31:
        raise Reject('corrupt', f'a picture of {width}x{height}')
    if width * height > limits.max_pixels:
        raise Reject('too_many_pixels', f'{width}x{height}; the limit is {limits.max_pixels}')
    if max(size) > limits.max_side:
        raise Reject('too_many_pixels', f'{width}x{height}; no side may exceed {limits.max_side}')


def _check_judged(image: Image.Image, sizes: set[tuple[int, int]]) -> None:
    """Room would be made for a size that was not judged."""
    if image.size not in sizes:
        raise Reject('corrupt', f'a picture that decodes to {image.width}x{image.height}, which it does not say')


def _encode(
    image: Image.Image, size: tuple[int, int], turn, icc: bytes | None, notes: list[str], format: str,
    white: int, digest: bytes | None = None, sixteen: sixteen_bits.SixteenBits | None = None
) -> Picture:
    """`digest` is that of a picture whose pixels are not all here; `sixteen` what `image` has but the high bytes of."""
    notes = list(notes)
    if sixteen:
        digest = sixteen_bits.digest(sixteen, turn)
        notes += sixteen_bits.notes_on(sixteen, white)
        image = sixteen_bits.in_eight_bits(sixteen, white)
    image = image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        opaque = Image.new('RGBA', image.size, 'white')
        opaque.alpha_composite(image.convert('RGBA'))
        image = opaque.convert('RGB')
        notes.append('alpha_flattened')
    if image.mode not in colours.PROFILE_SPACES:
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    transform = colours.to_srgb(icc, image.mode)
    if transform:
        image = transform(image)
        notes.append('converted_to_srgb')
    if image.mode != 'RGB':
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    digest = digest or digests.of_pixels(image, turn)
    if image.size != size:
        notes.append('shrunk')
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if turn is not None:
        image = image.transpose(turn)
        notes.append('exif_rotated')
    buffer = io.BytesIO()
    image.save(buffer, format, **SAVED[format])
    notes = dict.fromkeys(notes + _odd_shape(image.size))  # Each once.
    return Picture(buffer.getvalue(), image.height, image.width, tuple(notes), digest)


def _shrunk(size: tuple[int, int], max_side: int, short_side: int) -> tuple[int, int]:
    by_longer = max_side / max(size) if max_side else 1.0
    by_shorter = short_side / min(size) if short_side else 1.0
    factor = min(1.0, by_longer, by_shorter)
    return tuple(max(1, round(side * factor)) for side in size)


def _odd_shape(size: tuple[int, int]) -> list[str]:
    return ['tiny'] * (min(size) < TINY_SIDE) + ['extreme_aspect'] * (max(size) > EXTREME_ASPECT * min(size))
