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
SAVED = {'JPEG': {'quality': 92, 'subsampling': 0, 'comment': b''}, 'PNG': {'icc_profile': None}}  # All are in sRGB.
TINY_SIDE = 10
EXTREME_ASPECT = 20
SIXTEEN_BIT_MAX = (1 << 16) - 1

UPRIGHT = {  # What undoes each EXIF orientation.
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """Of what is let in: `disk.read` knows of the bytes, `admit` of the pixels."""

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


@dataclass(frozen=True)
class _Wanted:
    """What `admit` is told of how to store a picture."""

    max_side: int
    short_side: int
    format: str
    sixteen_bit_max: int


@dataclass(frozen=True)
class _Decoded:
    """What a judge makes of a file that it lets in."""

    image: Image.Image  # As it is stored: neither upright nor in RGB.
    notes: list[str]
    icc: bytes | None = None
    turn: Image.Transpose | None = None  # What puts it upright.
    sixteen: sixteen_bits.SixteenBits | None = None  # What `image` has only the high bytes of.
    digest: bytes | None = None  # Where it is not that of the pixels, as they are not all here.


def admit(
    data: bytes, limits: Limits = DEFAULT_LIMITS, max_side: int = 0, short_side: int = 0, format: str = 'JPEG',
    sixteen_bit_max: int = SIXTEEN_BIT_MAX
) -> Picture:
    """The picture, upright, in RGB; no side longer than `max_side`, the shorter one at most `short_side`.

    0 leaves the size alone; nothing is ever enlarged. What is encoded again becomes a `format`, JPEG or PNG. Of 16
    bits, the value `sixteen_bit_max` and what lies above come out white. Raises Reject.
    """
    wanted = _Wanted(max_side, short_side, format, sixteen_bit_max)
    kind = formats.sniff(data)
    try:
        if kind == 'JPEG':
            return _admit_jpeg(data, limits, wanted)
        judge = JUDGES.get(kind) or functools.partial(_judge_other, kind=kind)
        decoded = judge(data, limits)
        return _encode(decoded, _shrunk(decoded.image.size, wanted), wanted)
    except MemoryError:
        raise Reject('too_many_pixels', 'not enough memory to decode it') from None


# ---- the judges: what a file says that it holds, then the decoder ----


def _admit_jpeg(data: bytes, limits: Limits, wanted: _Wanted) -> Picture:
    """Keeps the compressed bytes where nothing about them needs to change."""
    parsed = jpeg.parse(data)
    whole = (parsed.width, parsed.height)
    _check_size(whole, limits)
    if parsed.rare_coding:
        raise Reject('unsupported_coding', f'{parsed.rare_coding} JPEG')
    notes = ['extra_picture'] * parsed.pictures_follow + ['converted_to_rgb'] * (parsed.components != 3)
    notes += ['stray_bytes'] * bool(parsed.stray_bytes)
    size, turn = _shrunk(whole, wanted), UPRIGHT.get(jpeg.orientation(parsed.exif))
    image = decoders.opened(parsed.stripped, 'JPEG')
    converted = colours.to_srgb(parsed.icc, image.mode) is not None
    digest = digests.of_jpeg(parsed, converted)
    if size == whole and turn is None and parsed.components != 4 and not converted:
        # One eighth of the size costs half the time of a full decode and still reads the stream to its end.
        if parsed.whole_sampling:
            image.draft('L', (1, 1))
        decoders.load(image)
        return Picture(parsed.stripped, parsed.height, parsed.width, tuple(notes + _odd_shape(whole)), digest)
    if size != whole:
        notes.append('shrunk')
        image.draft(image.mode, size)  # The decoder itself shrinks by 2, 4 or 8.
    decoders.load(image)
    return _encode(_Decoded(image, notes, parsed.icc, turn, digest=digest), size, wanted)


def _judge_png(data: bytes, limits: Limits) -> _Decoded:
    parsed = png.parse(data)
    _check_size((parsed.width, parsed.height), limits)
    png.check_data(parsed)
    image = decoders.opened(parsed.critical, 'PNG')
    _check_judged(image, image.size == (parsed.width, parsed.height))
    decoders.load(image)
    notes, turn = ['first_frame'] * parsed.animated, UPRIGHT.get(jpeg.orientation(parsed.exif))
    sixteen = sixteen_bits.of_png(image, parsed) if parsed.depth == 16 else None
    return _Decoded(image, notes, parsed.icc, turn, sixteen)


def _judge_tiff(data: bytes, limits: Limits) -> _Decoded:
    parsed = tiff.parse(data)
    for size in filter(None, ((parsed.width, parsed.height), parsed.tile)):
        _check_size(size, limits)
    image = decoders.opened(data, 'TIFF')
    _check_judged(image, sorted(image.size) == sorted((parsed.width, parsed.height)))
    decoders.load(image)  # Which turns it upright, too.
    notes = ['first_frame'] * parsed.pages_follow + ['exif_rotated'] * (parsed.orientation in UPRIGHT)
    notes += ['scaled_to_8_bit'] * (parsed.depth == 16)
    sixteen = sixteen_bits.of_tiff(image, data) if parsed.depth == 16 else None
    return _Decoded(image, notes, image.info.get('icc_profile'), sixteen=sixteen)


def _judge_jpeg2000(data: bytes, limits: Limits) -> _Decoded:
    parsed = boxes.codestream(data)
    _check_size((parsed.width, parsed.height), limits)
    image = decoders.opened(data, 'JPEG2000')
    _check_judged(image, image.size == (parsed.width, parsed.height))
    decoders.load(image)
    notes = ['scaled_to_8_bit'] * (parsed.depth > 8)
    sixteen = sixteen_bits.of_grey(image) if image.mode.startswith('I') else None
    return _Decoded(image, notes, parsed.icc, sixteen=sixteen)


def _judge_boxed(data: bytes, limits: Limits, kind: str) -> _Decoded:
    """AVIF and HEIC. What turns the picture is in `exif` where the decoder has not done so."""
    claimed = boxes.sizes(data)
    for size in sorted(claimed):
        _check_size(size, limits)
    image = decoders.opened(data, kind)
    notes = ['first_frame'] * decoders.has_more_frames(image)
    shorter, longer = sorted(image.size)
    _check_judged(image, any(shorter <= min(size) and longer <= max(size) for size in claimed))
    decoders.load(image)
    return _Decoded(image, notes, image.info.get('icc_profile'), _turn_by_exif(image))


def _judge_other(data: bytes, limits: Limits, kind: str) -> _Decoded:
    if kind == 'WEBP':
        _check_size(webp.size(data), limits)  # Pillow makes room for the whole canvas when it opens one.
    image = decoders.opened(data, kind)
    _check_size(image.size, limits)
    partial = any(tile[1] != (0, 0, *image.size) for tile in image.tile)  # A frame smaller than its canvas.
    decoders.load(image)
    notes = ['first_frame'] * (partial or decoders.has_more_frames(decoders.opened(data, kind)))
    sixteen = sixteen_bits.of_grey(image) if image.mode == 'I' else None  # Of a PGM, which Pillow has scaled.
    return _Decoded(image, notes, image.info.get('icc_profile'), _turn_by_exif(image), sixteen)


JUDGES = {  # Of the formats whose size is known here before Pillow sees them, beside JPEG.
    'PNG': _judge_png, 'TIFF': _judge_tiff, 'JPEG2000': _judge_jpeg2000,
    'AVIF': functools.partial(_judge_boxed, kind='AVIF'), 'HEIF': functools.partial(_judge_boxed, kind='HEIF'),
}


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if not 0 < min(size) <= max(size) < 1 << 31:
        raise Reject('corrupt', f'a picture of {width}x{height}')
    if width * height > limits.max_pixels:
        raise Reject('too_many_pixels', f'{width}x{height}; the limit is {limits.max_pixels}')
    if max(size) > limits.max_side:
        raise Reject('too_many_pixels', f'{width}x{height}; no side may exceed {limits.max_side}')


def _check_judged(image: Image.Image, is_judged: bool) -> None:
    """Room would be made for a size that was not judged."""
    if not is_judged:
        raise Reject('corrupt', f'a picture that decodes to {image.width}x{image.height}, which it does not say')


def _turn_by_exif(image: Image.Image) -> Image.Transpose | None:
    exif = (image.info.get('exif') or b'').removeprefix(b'Exif\0\0')
    return UPRIGHT.get(jpeg.orientation(exif))


# ---- what was let in -> what is stored ----


def _encode(decoded: _Decoded, size: tuple[int, int], wanted: _Wanted) -> Picture:
    """`size` is that of the whole picture, shrunk; the decoder may have made it smaller already."""
    image, notes, turn, digest = decoded.image, list(decoded.notes), decoded.turn, decoded.digest
    if decoded.sixteen:
        digest = sixteen_bits.digest(decoded.sixteen, turn)
        notes += sixteen_bits.notes_on(decoded.sixteen, wanted.sixteen_bit_max)
        image = sixteen_bits.in_eight_bits(decoded.sixteen, wanted.sixteen_bit_max)
    image, changes = colours.as_seen(image, decoded.icc)
    notes += changes
    digest = digest or digests.of_pixels(image, turn)
    if image.size != size:
        notes.append('shrunk')
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if turn is not None:
        image = image.transpose(turn)
        notes.append('exif_rotated')
    buffer = io.BytesIO()
    image.save(buffer, wanted.format, **SAVED[wanted.format])
    notes = dict.fromkeys(notes + _odd_shape(image.size))  # Each once.
    return Picture(buffer.getvalue(), image.height, image.width, tuple(notes), digest)


def _shrunk(size: tuple[int, int], wanted: _Wanted) -> tuple[int, int]:
    by_longer = wanted.max_side / max(size) if wanted.max_side else 1.0
    by_shorter = wanted.short_side / min(size) if wanted.short_side else 1.0
    factor = min(1.0, by_longer, by_shorter)
    return tuple(max(1, round(side * factor)) for side in size)


def _odd_shape(size: tuple[int, int]) -> list[str]:
    return ['tiny'] * (min(size) < TINY_SIDE) + ['extreme_aspect'] * (max(size) > EXTREME_ASPECT * min(size))
