"""A PNG file's chunks, checked: decoders pass over wrong checksums and missing rows, which come out black."""

import binascii
import contextlib
import struct
import zlib
from dataclasses import dataclass

from finetune.console.errors import Reject

SIGNATURE = b'\x89PNG\r\n\x1a\n'
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # By colour type.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = (  # The seven passes of an interlaced picture: first column and row, step across and down.
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)
PIECE_BYTES = 1 << 20
MOST_ICC_BYTES = 1 << 22
MOST_TEXT_BYTES = 1 << 18  # In hexadecimal, more than the 64 KiB that the EXIF of a JPEG has at most.
RAW_EXIF = (b'Raw profile type exif\0', b'Raw profile type APP1\0')  # The latter of older versions.


@dataclass(frozen=True)
class Png:
    height: int
    width: int
    depth: int  # Bits a sample.
    samples: int  # Of a pixel: grey, grey and alpha, colours, colours and alpha; 1 with a palette too.
    exif: bytes | None  # A TIFF structure.
    icc: bytes | None
    animated: bool
    critical: bytes  # The file with nothing but header, palette, transparency and picture data.
    raw_bytes: int  # What the picture data must inflate to.


def parse(data: bytes) -> Png:
    """Checks the structure and every checksum that matters. Raises Reject; `check_data` does the rest."""
    kept, others, ended, position = [SIGNATURE], {}, False, len(SIGNATURE)
    header = None
    while not ended:
        kind, body, whole, position = _chunk(data, position)
        if kind == b'CgBI':
            raise Reject('unsupported_coding', "Apple's own kind of PNG; export it again as an ordinary one")
        if header is None and kind != b'IHDR':
            raise Reject('corrupt', 'a PNG that does not begin with its header')
        if kind == b'IHDR':
            if header is not None:  # Decoders believe the last one, whose size nobody has judged.
                raise Reject('corrupt', 'a PNG with two headers')
            header = _header(body)
        ended = kind == b'IEND'
        if kind in (b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND'):
            kept.append(whole)
        elif kind in (b'tEXt', b'zTXt'):
            texts = (name for name in RAW_EXIF if body.startswith(name))
            others.update((kind + name, body) for name in texts if kind + name not in others)
        else:
            others.setdefault(kind, body)
    width, height, depth, colour, interlaced = header
    return Png(
        height, width, depth, SAMPLES[colour], exif=_exif(others), icc=_icc(others.get(b'iCCP')),
        animated=b'acTL' in others, critical=b''.join(kept),
        raw_bytes=_raw_bytes(width, height, depth * SAMPLES[colour], interlaced),
    )


def check_data(png: Png) -> None:
    """Inflates the picture data piece by piece and counts it; memory does not grow with the picture."""
    inflate, found, position = zlib.decompressobj(), 0, len(SIGNATURE)
    try:
        while position < len(png.critical) and found < png.raw_bytes:
            kind, body, _, position = _chunk(png.critical, position)
            while kind == b'IDAT' and body and found < png.raw_bytes:
                found += len(inflate.decompress(body, PIECE_BYTES))
                body = inflate.unconsumed_tail
    except zlib.error as error:
        raise Reject('corrupt', f'PNG: {error}') from None
    if found < png.raw_bytes:
        raise Reject('truncated', f'the PNG holds {found} of {png.raw_bytes} bytes of picture')


def _chunk(data: bytes, position: int) -> tuple[bytes, bytes, bytes, int]:
    """(kind, body, the chunk as it stands, where the next one begins)."""
    if position + 12 > len(data):
        raise Reject('truncated', f'the PNG ends after {len(data)} bytes without an end chunk')
    length, kind = struct.unpack_from('>I4s', data, position)
    if not kind.isalpha():
        raise Reject('corrupt', f'no PNG chunk at byte {position}')
    end = position + 12 + length
    if end > len(data):
        raise Reject('truncated', f'the PNG ends after {len(data)} bytes, inside a chunk')
    whole = data[position:end]
    critical = kind[:1].isupper() or kind == b'tRNS'
    if critical and zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], 'big'):
        raise Reject('corrupt', f'the checksum of a PNG chunk ({kind.decode()}) is wrong')
    return kind, whole[8:-4], whole, end


def _header(body: bytes) -> tuple[int, int, int, int, int]:
    if len(body) != 13:
        raise Reject('corrupt', 'a PNG header of the wrong length')
    width, height, depth, colour, compression, filters, interlaced = struct.unpack('>IIBBBBB', body)
    exists = depth in DEPTHS.get(colour, ()) and not compression and not filters and interlaced <= 1
    if not width or not height or not exists:
        raise Reject('corrupt', f'a PNG header of {width}x{height}, colour type {colour}, {depth} bits')
    return width, height, depth, colour, interlaced


def _raw_bytes(width: int, height: int, bits: int, interlaced: int) -> int:
    """Rows of packed pixels, each with a byte in front that names its filter."""
    total = 0
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _icc(body: bytes | None) -> bytes | None:
    """The colour profile: a name, a zero, a method, then a deflated profile."""
    return _inflated(body.partition(b'\0')[2][1:], MOST_ICC_BYTES) or None if body else None


def _exif(others: dict[bytes, bytes]) -> bytes | None:
    """Of its own chunk, or of a text in hexadecimal, in which ImageMagick keeps what it found in other files."""
    if b'eXIf' in others:
        return others[b'eXIf']
    for name in RAW_EXIF:
        if lines := _text(others, name).split():
            digits = b''.join(lines[2:])  # After its kind and its length.
            with contextlib.suppress(ValueError):
                return binascii.unhexlify(digits[:len(digits) // 2 * 2]).removeprefix(b'Exif\0\0')
    return None


def _text(others: dict[bytes, bytes], name: bytes) -> bytes:
    """The beginning of what a chunk of this name holds; it may be deflated, and inflate to anything."""
    if deflated := others.get(b'zTXt' + name):
        return _inflated(deflated[len(name) + 1:], MOST_TEXT_BYTES)  # One byte more names the method.
    return others.get(b'tEXt' + name, b'')[len(name):MOST_TEXT_BYTES]


def _inflated(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b''
