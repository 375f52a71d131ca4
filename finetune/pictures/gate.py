"""One file's bytes become an upright RGB JPEG (or PNG), or a Reject(reason): the only judge of what a good picture is.

A file is judged by its content, never by its name; special files are not opened; size and pixel count are
known from the header before any decoder runs; every picture is decoded to its last byte. A JPEG that is
already upright keeps its compressed bytes, without metadata and without what follows its end. Everything else
is encoded again: turned, on white where it is transparent, with 8 bits, in sRGB (a colour profile of another
kind is converted; one that makes no sense is dropped). Beside records without loss, that second encoding is PNG.
What AVIF, HEIC, TIFF and JPEG 2000 files claim is read here first, as their decoders have the worst record.
A digest says which picture it is, of files that differ only in what is not seen.
"""


import contextlib
import ctypes
import errno
import functools
import hashlib
import io
import itertools
import os
import stat
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageChops

from finetune.console.errors import Reject
from finetune.pictures import boxes, jpeg, png, tiff

__all__ = ['Limits', 'Picture', 'Reject', 'admit', 'read', 'sniff']

Image.MAX_IMAGE_PIXELS = None  # `Limits` judges every size, before a decoder does.
warnings.filterwarnings('ignore', module='PIL')  # What is odd about one picture is said by its verdict.

# On flowers: 1.7 times the bytes of the original and a mean error of 1.14 levels; 95 with 4:2:0 colour takes as
# many bytes for 1.19 levels.
SAVED = {'JPEG': {'quality': 92, 'subsampling': 0, 'comment': b''}, 'PNG': {}}
TINY_SIDE = 10
EXTREME_ASPECT = 20
SIXTEEN_BIT_MAX = (1 << 16) - 1
DARK_LEVELS = 32  # Of 256. A picture that stays below has an eighth of the levels at most, and looks black.
LOW_BYTES = {2: 'RGBA', 3: 'RGB;16L', 4: 'RGBA;16L'}  # By samples: Pillow's name for an order of bytes in a 16-bit PNG.
ROWS_HASHED = 256  # At a time: a copy of the whole picture may not fit beside it.

UPRIGHT = {  # What undoes each EXIF orientation.
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SAME_COLOUR_LEVELS = 2  # True sRGB profiles of other makers differ so little, by rounding.
STRAIGHT = {'RGBa': 'RGBA', 'La': 'LA'}  # By Pillow's modes of colours that are multiplied with their alpha.
PROFILE_SPACES = {'RGB': 'RGB', 'L': 'GRAY', 'CMYK': 'CMYK'}  # Pillow's mode: the space that a profile names.

FORMATS = {  # By the first bytes of what is read here, the format as Pillow calls it.
    b'\xff\xd8': 'JPEG', png.SIGNATURE: 'PNG', b'GIF8': 'GIF', b'BM': 'BMP', b'RIFF': 'WEBP',
    **dict.fromkeys(tiff.SIGNATURES, 'TIFF'),
    **dict.fromkeys((b'\0\0\0\x0cjP  \r\n\x87\n', b'\xff\x4f\xff\x51'), 'JPEG2000'),
    **{b'P%d%c' % (kind, blank): 'PPM' for kind in range(1, 7) for blank in b' \t\r\n#'},
}
NOT_READ_HERE = {  # The first bytes of other pictures and films, at offset 0.
    b'\xff\x0a': 'JPEG XL', b'\0\0\0\x0cJXL ': 'JPEG XL', b'\0\0\1\0': 'ICO', b'%PDF': 'PDF',
    b'%!PS': 'EPS', b'\xc5\xd0\xd3\xc6': 'EPS', b'8BPS': 'PSD', b'<svg': 'SVG',
    b'\x1aE\xdf\xa3': 'Matroska or WebM film',
}
LIKELY_CAUSES = {  # What stands where a picture should be, by its first bytes in lower case.
    b'version https://git-lfs': 'a Git LFS pointer: run `git lfs pull`',
    b'<!doctype html': 'an HTML page', b'<html': 'an HTML page', b'\x1f\x8b': 'gzip data',
    b'pk\x03\x04': 'a zip archive', b'\x80\x04': 'a Python pickle', b'{': 'JSON text', b'\0\0\0\0': 'zeros',
    b'/9j/': 'a JPEG in base64 text', b'ivborw0k': 'a PNG in base64 text',
}


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


# ---- one file -> its bytes ----


def read(
    path: bytes | str | os.PathLike, limits: Limits = DEFAULT_LIMITS, follow_symlinks: bool = True
) -> bytes:
    """The bytes of a regular file. Never waits for a FIFO, never reads a device, never more than the limit."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
    except OSError as error:
        raise _why_not_opened(path, error, follow_symlinks) from None
    except ValueError as error:  # A NUL in the name.
        raise Reject('unreadable', str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Reject('not_a_regular_file', _kind_of_file(status.st_mode))
        if status.st_size > limits.max_bytes:
            raise Reject('file_too_big', f'{status.st_size} bytes; the limit is {limits.max_bytes}')
        data = _read_all(descriptor, status.st_size)
    except OSError as error:
        raise Reject('unreadable', error.strerror) from None
    finally:
        os.close(descriptor)
    if not data:
        raise Reject('empty_file', '0 bytes')
    return data


def _read_all(descriptor: int, size: int) -> bytes:
    """As many bytes as the file had when it was opened, or fewer; it may be growing or shrinking."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):  # Network disks give pieces.
        data += more
    return data


def _why_not_opened(path, error: OSError, follow_symlinks: bool) -> Reject:
    if error.errno == errno.ELOOP:
        return Reject('symlink_loop', 'a link that leads to itself') if follow_symlinks else \
            Reject('symlink', 'a symbolic link (--no_symlinks)')
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        is_link = os.path.islink(path)  # noqa: PTH114 - a Path cannot hold bytes.
        return Reject('symlink_dangling', 'a link to nothing') if is_link else \
            Reject('vanished', 'it is no longer there')
    if error.errno == errno.ENXIO:
        return Reject('not_a_regular_file', 'a socket or a device')
    return Reject('unreadable', error.strerror)


def _kind_of_file(mode: int) -> str:
    kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a FIFO', stat.S_IFSOCK: 'a socket'}
    return kinds.get(stat.S_IFMT(mode), 'a device')


# ---- bytes -> verdict ----


def sniff(data: bytes) -> str:
    """The format, as in FORMATS, 'AVIF' or 'HEIF', by the first bytes. Raises Reject and names what it is instead."""
    for magic, name in FORMATS.items():
        if data.startswith(magic) and (name != 'WEBP' or data[8:12] == b'WEBP'):
            return name
    for magic, name in NOT_READ_HERE.items():
        if data.startswith(magic):
            raise _unsupported(name)
    if data[4:8] == b'ftyp':
        if name := boxes.brand(data):
            return name
        raise _unsupported('film (MP4 or QuickTime)')
    start = data[:512].lstrip().lower()
    if start.startswith(b'<?xml') and b'<svg' in start:
        raise _unsupported('SVG')
    causes = (cause for magic, cause in LIKELY_CAUSES.items() if start.startswith(magic))
    raise Reject('not_an_image', next(causes, 'no known picture format'))


def _unsupported(name: str) -> Reject:
    return Reject('unsupported_format', f'{name} is not read here; convert it to JPEG or PNG')


def admit(
    data: bytes, limits: Limits = DEFAULT_LIMITS, max_side: int = 0, short_side: int = 0, format: str = 'JPEG',
    sixteen_bit_max: int = SIXTEEN_BIT_MAX
) -> Picture:
    """The picture, upright, in RGB; no side longer than `max_side`, the shorter one at most `short_side`.

    0 leaves the size alone; nothing is ever enlarged. What is encoded again becomes a `format`, JPEG or PNG. Of 16
    bits, the value `sixteen_bit_max` and what lies above come out white. Raises Reject.
    """
    kind = sniff(data)
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
    image = _open(parsed.stripped, 'JPEG')
    converted = _to_srgb(parsed.icc, image.mode) is not None
    plain = parsed.components != 4 and turn is None and not converted
    if plain and shrunk(size) == size:
        # One eighth of the size costs half the time of a full decode and still reads the stream to its end.
        if parsed.whole_sampling:
            image.draft('L', (1, 1))
        _load(image)
        return Picture(
            parsed.stripped, parsed.height, parsed.width, tuple(notes + _odd_shape(size)), _jpeg_digest(parsed))
    if shrunk(size) != size:
        notes.append('shrunk')
        image.draft(image.mode, shrunk(size))  # The decoder itself shrinks by 2, 4 or 8.
    _load(image)
    return encode(image, shrunk(size), turn, parsed.icc, notes, digest=_jpeg_digest(parsed, converted))


def _jpeg_digest(parsed: jpeg.Jpeg, converted: bool = False) -> bytes:
    """Of the compressed bytes, as a shrunken picture is never decoded whole, and of what changes how they look."""
    profile = parsed.icc if converted else b''
    digest = hashlib.sha256(b'JPEG %d %d ' % (jpeg.orientation(parsed.exif), len(profile)))
    digest.update(profile)
    digest.update(parsed.stripped)
    return digest.digest()


def _pixel_digest(image: Image.Image, turn) -> bytes:
    """Of the decoded values, upright."""
    upright = image if turn is None else image.transpose(turn)
    digest = hashlib.sha256(f'{upright.mode} {upright.size} '.encode())
    for top in range(0, upright.height, ROWS_HASHED):
        rows = upright.crop((0, top, upright.width, min(top + ROWS_HASHED, upright.height)))
        digest.update(rows.tobytes())
    return digest.digest()


def _admit_png(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = png.parse(data)
    _check_size((parsed.width, parsed.height), limits)
    png.check_data(parsed)
    image = _open(parsed.critical, 'PNG')
    _check_judged(image, {(parsed.width, parsed.height)})
    _load(image)
    notes, turn = ['first_frame'] * parsed.animated, UPRIGHT.get(jpeg.orientation(parsed.exif))
    sixteen = _sixteen_bit_png(image, parsed) if parsed.depth == 16 else None
    return encode(image, shrunk(image.size), turn, parsed.icc, notes, sixteen=sixteen)


# ---- 16 bits a band ----


class SixteenBits(NamedTuple):
    """What Pillow has no mode for but with one band."""

    bands: list[Image.Image]  # Of colour, with both of their bytes.
    alpha: Image.Image | None = None  # The high bytes of how opaque it is.
    transparent: tuple[int, ...] = ()  # The one value, of each band, that is not seen.


def _sixteen_bit_png(image: Image.Image, parsed: png.Png) -> SixteenBits:
    """Of grey alone Pillow reads both bytes, of everything else the high ones; told another order, the low ones."""
    transparent = image.info.get('transparency', ())  # One value a band; of grey Pillow gives it bare.
    transparent = (transparent,) if isinstance(transparent, int) else transparent
    if parsed.samples == 1:
        return _sixteen_bit_grey(image, transparent)
    again = _open(parsed.critical, 'PNG')
    again.tile = [tile._replace(args=LOW_BYTES[parsed.samples]) for tile in again.tile]
    _load(again)
    if parsed.samples == 2:
        high, low, alpha, _ = again.split()
        return SixteenBits([_sixteen_bits(low, high)], alpha, transparent)
    return _sixteen_bit_colours(low=again, high=image)._replace(transparent=transparent)


def _sixteen_bit_grey(image: Image.Image, transparent: tuple[int, ...] = ()) -> SixteenBits:
    grey = image.convert('I').convert('I;16') if image.mode == 'I;16B' else image.convert('I;16')  # Else it is clipped.
    grey.info = {}  # Else it goes with all that is made of it, and 8 bits are looked through for a 16-bit value.
    return SixteenBits([grey], transparent=transparent)


def _sixteen_bit_colours(low: Image.Image, high: Image.Image) -> SixteenBits:
    bands = [_sixteen_bits(*both) for both in zip(low.split()[:3], high.split()[:3], strict=True)]
    return SixteenBits(bands, high.getchannel('A') if high.mode == 'RGBA' else None)


def _sixteen_bits(low: Image.Image, high: Image.Image) -> Image.Image:
    return Image.frombytes('I;16', low.size, Image.merge('LA', (low, high)).tobytes())


def _eight_bits(sixteen: SixteenBits, white: int) -> Image.Image:
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


def _sixteen_bit_notes(sixteen: SixteenBits, white: int) -> list[str]:
    highest = max(band.getextrema()[1] for band in sixteen.bands)
    notes = ['scaled_to_8_bit'] + ['alpha_flattened'] * bool(sixteen.transparent)
    notes += ['clipped_16_bit'] * (highest > white)
    if highest and _scale(white)[highest] < DARK_LEVELS:
        notes += ['dark_16_bit', f'uses_{highest.bit_length()}_of_16_bits']
    return notes


def _sixteen_bit_digest(sixteen: SixteenBits, turn) -> bytes:
    """Of all bits: many pictures may come out as one black."""
    bands = [*sixteen.bands, *filter(None, [sixteen.alpha])]
    digests = [_pixel_digest(band, turn) for band in bands]
    return hashlib.sha256(b''.join(digests) + repr(sixteen.transparent).encode()).digest()


def _admit_other(data: bytes, limits: Limits, shrunk, encode, kind: str) -> Picture:
    if kind == 'WEBP':
        _check_size(_webp_size(data), limits)  # Pillow makes room for the whole canvas when it opens one.
    image = _open(data, kind)
    _check_size(image.size, limits)
    partial = any(tile[1] != (0, 0, *image.size) for tile in image.tile)  # A frame smaller than its canvas.
    _load(image)
    notes = ['first_frame'] * (partial or _has_more_frames(_open(data, kind)))
    exif = (image.info.get('exif') or b'').removeprefix(b'Exif\0\0')
    turn = UPRIGHT.get(jpeg.orientation(exif))
    sixteen = _sixteen_bit_grey(image) if image.mode == 'I' else None  # Of a PGM, which Pillow has scaled.
    return encode(image, shrunk(image.size), turn, image.info.get('icc_profile'), notes, sixteen=sixteen)


def _admit_tiff(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = tiff.parse(data)
    for size in filter(None, ((parsed.width, parsed.height), parsed.tile)):
        _check_size(size, limits)
    image = _open(data, 'TIFF')
    _check_judged(image, {(parsed.width, parsed.height), (parsed.height, parsed.width)})
    _load(image)  # Which turns it upright, too.
    notes = ['first_frame'] * parsed.pages_follow + ['exif_rotated'] * (parsed.orientation in UPRIGHT)
    notes += ['scaled_to_8_bit'] * (parsed.depth == 16)
    sixteen = _sixteen_bit_tiff(image, data) if parsed.depth == 16 else None
    return encode(image, shrunk(image.size), None, image.info.get('icc_profile'), notes, sixteen=sixteen)


def _sixteen_bit_tiff(image: Image.Image, data: bytes) -> SixteenBits | None:
    """None where only the high bytes can be had: of CMYK, and of colours that are multiplied with their alpha."""
    if image.mode.startswith('I'):
        return _sixteen_bit_grey(image)
    again = _open(data, 'TIFF')
    if not again.tile[0].args[0].startswith(('RGB;16', 'RGBX;16', 'RGBA;16')):
        return None
    again.tile = [tile._replace(args=(_other_order(tile.args[0]), *tile.args[1:])) for tile in again.tile]
    _load(again)
    return _sixteen_bit_colours(low=again, high=image)


def _other_order(rawmode: str) -> str:
    """Pillow's name of an order of bytes in which their low ones pass for the high ones. N is that of the machine."""
    order = {'L': 'B', 'B': 'L', 'N': 'B' if sys.byteorder == 'little' else 'L'}[rawmode[-1]]
    return rawmode[:-1] + order


def _admit_jpeg2000(data: bytes, limits: Limits, shrunk, encode) -> Picture:
    parsed = boxes.codestream(data)
    _check_size((parsed.width, parsed.height), limits)
    image = _open(data, 'JPEG2000')
    _check_judged(image, {(parsed.width, parsed.height)})
    _load(image)
    sixteen = _sixteen_bit_grey(image) if image.mode.startswith('I') else None
    notes = ['scaled_to_8_bit'] * (parsed.depth > 8)
    return encode(image, shrunk(image.size), None, parsed.icc, notes, sixteen=sixteen)


def _admit_boxed(data: bytes, limits: Limits, shrunk, encode, kind: str) -> Picture:
    """AVIF and HEIC. What turns the picture is in `exif` where the decoder has not done so."""
    claimed = boxes.sizes(data)
    for size in sorted(claimed):
        _check_size(size, limits)
    image = _open(data, kind)
    several = _has_more_frames(image)
    smaller = {(width, height) for width, height in (image.size, image.size[::-1])}
    if not any(width <= most_wide and height <= most_high
               for width, height in smaller for most_wide, most_high in claimed):
        raise Reject('corrupt', f'a picture that decodes to {image.width}x{image.height}, which it does not say')
    _load(image)
    exif = (image.info.get('exif') or b'').removeprefix(b'Exif\0\0')
    turn = UPRIGHT.get(jpeg.orientation(exif))
    return encode(image, shrunk(image.size), turn, image.info.get('icc_profile'), ['first_frame'] * several)


def _check_judged(image: Image.Image, sizes: set[tuple[int, int]]) -> None:
    """Room would be made for a size that was not judged."""
    if image.size not in sizes:
        raise Reject('corrupt', f'a picture that decodes to {image.width}x{image.height}, which it does not say')


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return getattr(image, 'is_animated', False)
    except Exception:  # What follows the first frame is damaged; the first one is whole.
        return True


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


def _webp_size(data: bytes) -> tuple[int, int]:
    if int.from_bytes(data[4:8], 'little') + 8 > len(data):
        raise Reject('truncated', f'the WebP ends after {len(data)} bytes')
    kind, body = data[12:16], data[20:30]
    if kind == b'VP8X':
        return int.from_bytes(body[4:7], 'little') + 1, int.from_bytes(body[7:10], 'little') + 1
    if kind == b'VP8L':
        bits = int.from_bytes(body[1:5], 'little')
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], 'little') & 0x3FFF, int.from_bytes(body[8:10], 'little') & 0x3FFF


def _shrunk(size: tuple[int, int], max_side: int, short_side: int) -> tuple[int, int]:
    by_longer = max_side / max(size) if max_side else 1.0
    by_shorter = short_side / min(size) if short_side else 1.0
    factor = min(1.0, by_longer, by_shorter)
    return tuple(max(1, round(side * factor)) for side in size)


def _odd_shape(size: tuple[int, int]) -> list[str]:
    return ['tiny'] * (min(size) < TINY_SIDE) + ['extreme_aspect'] * (max(size) > EXTREME_ASPECT * min(size))


# ---- Pillow, whose exceptions on bad bytes are verdicts on the bytes ----


def _open(data: bytes, kind: str) -> Image.Image:
    _make_ready(kind)
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except MemoryError:
        raise
    except Exception as error:
        raise _verdict(error) from None


@functools.cache
def _make_ready(kind: str) -> None:
    """One thread a picture, as there are as many processes as cores; HEIC by a library that not everybody has.

    libtiff prints on stderr what our verdict says, and Pillow has no switch for it.
    """
    if kind == 'TIFF':
        with contextlib.suppress(AttributeError, OSError):  # A Pillow that was built in another way, and prints.
            libtiff = ctypes.CDLL(Image.core.__file__)
            libtiff.TIFFSetErrorHandler(None)
            libtiff.TIFFSetWarningHandler(None)
    if kind == 'AVIF':
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if kind == 'HEIF':
        try:
            import pillow_heif
        except ImportError:
            raise Reject('unsupported_format', 'HEIC is read where pillow-heif is installed: '
                         "pip install 'finetune[heic]'") from None
        pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _verdict(error) from None


def _verdict(error: Exception) -> Reject:
    text = str(error).partition('<')[0].strip() or type(error).__name__  # Without "<_io.BytesIO object at …>".
    return Reject('truncated' if 'truncated' in text.lower() else 'corrupt', text)


def _encode(
    image: Image.Image, size: tuple[int, int], turn, icc: bytes | None, notes: list[str], format: str,
    white: int, digest: bytes | None = None, sixteen: SixteenBits | None = None
) -> Picture:
    """`digest` is that of a picture whose pixels are not all here; `sixteen` what `image` has but the high bytes of."""
    notes = list(notes)
    if sixteen:
        digest = _sixteen_bit_digest(sixteen, turn)
        notes += _sixteen_bit_notes(sixteen, white)
        image = _eight_bits(sixteen, white)
    image = image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        opaque = Image.new('RGBA', image.size, 'white')
        opaque.alpha_composite(image.convert('RGBA'))
        image = opaque.convert('RGB')
        notes.append('alpha_flattened')
    if image.mode not in PROFILE_SPACES:
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    transform = _to_srgb(icc, image.mode)
    if transform:
        image = transform(image)
        notes.append('converted_to_srgb')
    if image.mode != 'RGB':
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    digest = digest or _pixel_digest(image, turn)
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


@functools.lru_cache(maxsize=8)  # Pictures of one camera carry one profile.
def _to_srgb(icc: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """What turns the colours of a profile into sRGB; None where they already are, or it makes no sense."""
    if not icc or mode not in PROFILE_SPACES:
        return None
    from PIL import ImageCms  # Few pictures need it.

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != PROFILE_SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile('sRGB'), mode, 'RGB')
        converted = ImageCms.applyTransform(_test_colours(mode), transform)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    changes = ImageChops.difference(_test_colours(mode).convert('RGB'), converted).getextrema()
    if max(most for _, most in changes) <= SAME_COLOUR_LEVELS:
        return None
    return functools.partial(ImageCms.applyTransform, transform=transform)


def _test_colours(mode: str) -> Image.Image:
    """All mixtures of six levels, to see what a profile does to colours; its name may say something else."""
    mixtures = itertools.product(range(0, 256, 51), repeat=3)
    return Image.frombytes('RGB', (6 ** 3, 1), bytes(itertools.chain(*mixtures))).convert(mode)
