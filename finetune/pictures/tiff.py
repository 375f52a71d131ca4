"""A TIFF file's first page: what picture it says it is, and whether all of its strips or tiles are there."""

import struct
from dataclasses import dataclass

from finetune.console.errors import Reject

SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # The last two are of BigTIFF, with places of 8 bytes.
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, DNG_VERSION = 338, 339, 50706
JUDGED = {
    SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP,
    STRIP_BYTES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT, DNG_VERSION,
}
FORMATS = {1: 'B', 3: 'H', 4: 'I', 13: 'I', 16: 'Q', 18: 'Q'}  # Of whole numbers, by the kind of a field.
COMPRESSIONS = {  # That do not let a few bytes ask for gigabytes, and that are read everywhere.
    1: 'none', 2: 'CCITT', 3: 'group 3', 4: 'group 4', 5: 'LZW', 7: 'JPEG', 8: 'deflate', 32773: 'PackBits',
    32946: 'deflate',
}
WHITE_IS_ZERO, YCBCR, LAB = 0, 6, 8
MOST_FIELDS = 4096
MOST_PIECES = 1 << 20  # Strips or tiles. One a row is usual.
MOST_SAMPLES = 6


@dataclass(frozen=True)
class Tiff:
    height: int  # As it is stored, before it is turned.
    width: int
    tile: tuple[int, int] | None  # Width and height of what decoders make room for at a time, where that is a tile.
    depth: int  # Bits a sample.
    orientation: int
    pages_follow: bool


def parse(data: bytes) -> Tiff:
    """Reads the first directory alone. Raises Reject."""
    order = {b'II': '<', b'MM': '>'}[data[:2]]
    big = 43 in data[2:4]
    fields, pages_follow = _directory(data, order, big)

    def values(tag: int, *otherwise: int) -> tuple[int, ...]:
        return _values(data, order, big, fields[tag]) if tag in fields else otherwise

    def value(tag: int, otherwise: int = 0) -> int:
        return (*values(tag), otherwise)[0]

    width, height, samples = value(WIDTH), value(HEIGHT), value(SAMPLES, 1)
    if DNG_VERSION in fields or value(SUBFILE) & 1:
        raise Reject('unsupported_format', 'a raw photo whose first picture is a small one; convert it to JPEG or PNG')
    depth = _depth(values(BITS, 1), values(SAMPLE_FORMAT, 1), samples)
    _check_coding(value(COMPRESSION, 1), value(PHOTOMETRIC), depth)
    tile = (value(TILE_WIDTH), value(TILE_HEIGHT)) if TILE_OFFSETS in fields else None
    if not width or not height or (tile and not min(tile)):
        raise Reject('corrupt', f'a TIFF of {width}x{height}')
    planes = samples if value(PLANAR, 1) == 2 else 1
    across, down = tile or (width, min(value(ROWS_PER_STRIP) or height, height))
    columns, rows = -(-width // across), -(-height // down)
    pieces = columns * rows * planes
    if pieces > MOST_PIECES:
        raise Reject('unsupported_coding', f'TIFF in {pieces} pieces')
    offsets, lengths = values(TILE_OFFSETS if tile else STRIP_OFFSETS), values(TILE_BYTES if tile else STRIP_BYTES)
    _check_pieces(len(data), pieces, offsets, lengths)
    if value(COMPRESSION, 1) == 1:
        row_bytes = -(-across * samples // planes * depth // 8)
        _check_bytes(sum(lengths), row_bytes * columns * planes * (rows * down if tile else height))
    return Tiff(height, width, tile, depth, value(ORIENTATION, 1), pages_follow)


def _directory(data: bytes, order: str, big: bool) -> tuple[dict[int, tuple[int, int, int]], bool]:
    """(kind, number of values, where they or their place stand) of each field, and whether another page follows."""
    place, count, entry = ('Q', 'Q', 'HHQ') if big else ('I', 'H', 'HHI')
    first, = _unpack(f'{order}{place}', data, 8 if big else 4)
    number, = _unpack(f'{order}{count}', data, first)
    if not 0 < number <= MOST_FIELDS:
        raise Reject('corrupt', f'a TIFF directory of {number} fields')
    fields, position = {}, first + struct.calcsize(f'{order}{count}')
    for _ in range(number):
        tag, kind, length = _unpack(f'{order}{entry}', data, position)
        position += struct.calcsize(f'{order}{entry}')
        if tag in JUDGED and tag in fields:  # Some decoders believe the first, others the last.
            raise Reject('corrupt', f'field {tag} twice in a TIFF')
        fields[tag] = kind, length, position
        position += 8 if big else 4
    following = data[position:position + (8 if big else 4)]
    return fields, any(following)


def _values(data: bytes, order: str, big: bool, field: tuple[int, int, int]) -> tuple[int, ...]:
    kind, length, position = field
    if kind not in FORMATS or length > MOST_PIECES * MOST_SAMPLES:
        raise Reject('corrupt', f'{length} values of kind {kind} where a TIFF has whole numbers')
    numbers = f'{order}{length}{FORMATS[kind]}'
    if struct.calcsize(numbers) > (8 if big else 4):
        position, = _unpack(f'{order}{"Q" if big else "I"}', data, position)
    return _unpack(numbers, data, position)


def _unpack(numbers: str, data: bytes, position: int) -> tuple[int, ...]:
    if position + struct.calcsize(numbers) > len(data):
        raise Reject('truncated', f'the TIFF ends after {len(data)} bytes, inside its directory')
    return struct.unpack_from(numbers, data, position)


def _depth(bits: tuple[int, ...], formats: tuple[int, ...], samples: int) -> int:
    """Bits of each sample, which are as many for all."""
    if not 1 <= samples <= MOST_SAMPLES:
        raise Reject('unsupported_coding', f'TIFF with {samples} samples a pixel')
    if set(formats) != {1}:
        raise Reject('unsupported_coding', 'TIFF of signed numbers or floats; scale it to 8 or 16 bits')
    if len(set(bits)) != 1 or bits[0] not in (1, 2, 4, 8, 16):
        shown = ' '.join(map(str, bits[:MOST_SAMPLES]))
        raise Reject('unsupported_coding', f'TIFF with {shown} bits a sample; scale it to 8 or 16 bits')
    return bits[0]


def _check_coding(compression: int, photometric: int, depth: int) -> None:
    if compression not in COMPRESSIONS:
        raise Reject('unsupported_coding', f'TIFF with compression {compression}; save it with LZW or deflate')
    if photometric == LAB or (photometric == YCBCR and compression == 1) or (
            photometric == WHITE_IS_ZERO and depth == 16):  # Which Pillow reads as other colours.
        raise Reject('unsupported_coding', f'TIFF with colours of kind {photometric}; convert it to RGB')


def _check_pieces(size: int, pieces: int, offsets: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    if not len(offsets) == len(lengths) == pieces:
        raise Reject('corrupt', f'{len(offsets)} places and {len(lengths)} lengths for {pieces} pieces of a TIFF')
    for offset, length in zip(offsets, lengths, strict=True):
        if not length:
            raise Reject('corrupt', 'an empty piece in a TIFF')
        if offset + length > size:
            raise Reject('truncated', f'the TIFF ends after {size} bytes, inside the picture')


def _check_bytes(found: int, needed: int) -> None:
    if found < needed:
        raise Reject('truncated', f'the TIFF holds {found} of {needed} bytes of picture')
