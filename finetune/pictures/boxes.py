"""The boxes of AVIF, HEIC and JPEG 2000 files, which say how large a picture is before any decoder sees it."""

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.console.errors import Reject

MOST_BOXES = 100_000  # A photo of a phone, in tiles, has some 200.
MOST_TILES = 10_000  # Decoders of JPEG 2000 make some 10 KB of room for each before they read it.
MOST_MARKERS = 200_000
MOST_LEVELS = 32
LEAST_BLOCK = 128  # Samples in a block of a JPEG 2000, on average; 64 x 64 are usual. Of few blocks, any size goes.
FEW_BLOCKS = 10_000
HOLD_BOXES = {  # Where the boxes inside begin.
    b'meta': 4, b'iprp': 0, b'ipco': 0, b'moov': 0, b'trak': 0, b'mdia': 0, b'minf': 0, b'stbl': 0, b'stsd': 8,
    b'jp2h': 0,
}
BRANDS = {  # What a file is by the brands that it claims.
    b'avif': 'AVIF', b'avis': 'AVIF',
    **dict.fromkeys((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs'), 'HEIF'),
}
OF_ANY_CODEC = (b'mif1', b'msf1', b'miaf', b'MiHB')

SOC, SIZ, COD, COC, SOT, SOD, EOC = (b'\xff' + bytes([code]) for code in b'\x4f\x51\x52\x53\x90\x93\xd9')


@dataclass(frozen=True)
class Codestream:
    """The picture in a JPEG 2000 file."""

    width: int
    height: int
    depth: int  # Bits a sample, the most of any component.
    components: int
    icc: bytes | None = None


def brand(data: bytes) -> str | None:
    """'AVIF' or 'HEIF'; None where the first box names neither, as in a film."""
    end = min(int.from_bytes(data[:4], 'big'), 256)
    major, others = data[8:12], [data[place:place + 4] for place in range(16, end, 4)]
    named = [major, *(others if major in OF_ANY_CODEC else [])]
    return next((BRANDS[name] for name in named if name in BRANDS), None)


def sizes(data: bytes) -> set[tuple[int, int]]:
    """Every (width, height) that an AVIF or HEIC file claims of a picture, a tile, a mask or a film in it.

    All of them, as the file decides in many ways which one a decoder makes room for.
    """
    found = set()
    for kind, start, end in _all_boxes(data):
        if kind == b'ispe':
            found.add(_two(data, start + 4, end))
        elif kind == b'tkhd':  # In 65536ths of a pixel.
            found.add(tuple(side >> 16 for side in _two(data, max(start, end - 8), end)))
        elif kind in (b'av01', b'hvc1', b'hev1'):
            found.add(struct.unpack('>HH', _part(data, start + 24, start + 28, end)))
    found.discard((0, 0))  # Of a track without pictures.
    if not found:
        raise Reject('corrupt', 'no box says how large the picture is')
    return found


def codestream(data: bytes) -> Codestream:
    """Of a JPEG 2000 file or a bare codestream, checked to its last tile. Raises Reject."""
    if data.startswith(SOC + SIZ):
        return _codestream(data, 0, len(data))
    header, found, icc = None, None, None
    for kind, start, end in _all_boxes(data):
        if kind == b'ihdr' and header is None:
            header = struct.unpack('>IIH', _part(data, start, start + 10, end))
        elif kind == b'colr' and data[start:start + 1] == b'\2':
            icc = data[start + 3:end]
        elif kind == b'jp2c' and found is None:
            found = _codestream(data, start, end)
    if header is None or found is None:
        raise Reject('corrupt', 'a JPEG 2000 without a header or a picture')
    if header != (found.height, found.width, found.components):
        raise Reject('corrupt', 'a JPEG 2000 whose header tells of another picture than it holds')
    return dataclasses.replace(found, icc=icc)


# ---- boxes ----


def _all_boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its content begins, where it ends) of every box, those that hold others before these."""
    ranges, seen = [(0, len(data))], 0
    while ranges:
        position, end = ranges.pop()
        while position < end:
            seen += 1
            if seen > MOST_BOXES:
                raise Reject('corrupt', f'more than {MOST_BOXES} boxes')
            kind, start, after = _box(data, position, end)
            yield kind, start, after
            if kind in HOLD_BOXES and start + HOLD_BOXES[kind] <= after:
                ranges.append((start + HOLD_BOXES[kind], after))
            position = after


def _box(data: bytes, position: int, end: int) -> tuple[bytes, int, int]:
    """(kind, where its content begins, where it ends)"""
    length, kind = struct.unpack('>I4s', _part(data, position, position + 8, end))
    start = position + 8
    if length == 1:
        length, = struct.unpack('>Q', _part(data, start, start + 8, end))
        start += 8
    after = position + length if length else end  # 0: as long as what it stands in.
    if after < start:
        raise Reject('corrupt', f'a box of {length} bytes at byte {position}')
    if after > end:
        raise Reject('truncated', f'a box ends at byte {after} of {end}')
    return kind, start, after


def _two(data: bytes, start: int, end: int) -> tuple[int, int]:
    return struct.unpack('>II', _part(data, start, start + 8, end))


def _part(data: bytes, start: int, stop: int, end: int) -> bytes:
    if not 0 <= start <= stop <= end:
        raise Reject('truncated', f'the file or a box in it ends at byte {end}, inside a header')
    return data[start:stop]


# ---- the codestream of JPEG 2000 ----


def _codestream(data: bytes, start: int, end: int) -> Codestream:
    """Walks from tile to tile; a decoder is content with those that are there, and leaves the others black."""
    if _part(data, start, start + 4, end) != SOC + SIZ:
        raise Reject('corrupt', 'a JPEG 2000 that does not begin with its size')
    found, tiles = _size(data, start + 6, end)
    position, seen, tile_end = _after(data, start + 2, end), set(), None
    for _ in range(MOST_MARKERS):
        marker = _part(data, position, position + 2, end)
        if marker == EOC and tile_end is None:
            break
        if marker == SOD and tile_end is not None:
            position, tile_end = max(position, tile_end), None
            continue
        if marker == SOT and tile_end is None:
            number, length = struct.unpack('>HI', _part(data, position + 4, position + 10, end))
            if number >= tiles:
                raise Reject('corrupt', f'tile {number} of {tiles}')
            seen.add(number)
            tile_end = position + length if length else _last_eoc(data, position, end)
            if tile_end > end:
                raise Reject('truncated', f'the JPEG 2000 ends after {end} bytes, inside the picture')
        elif marker in (COD, COC):
            _check_blocks(data[position + 4:_after(data, position, end)], marker, found)
        elif marker[0] != 0xFF or marker in (SOC, SIZ, SOT, SOD, EOC):
            raise Reject('corrupt', f'no JPEG 2000 marker at byte {position}')
        position = _after(data, position, end)
    else:
        raise Reject('corrupt', f'more than {MOST_MARKERS} markers in a JPEG 2000')
    if len(seen) < tiles:
        raise Reject('truncated', f'the JPEG 2000 holds {len(seen)} of {tiles} tiles')
    return found


def _after(data: bytes, position: int, end: int) -> int:
    """Where the segment of the marker at this position ends."""
    length, = struct.unpack('>H', _part(data, position + 2, position + 4, end))
    after = position + 2 + max(length, 2)
    _part(data, position, after, end)
    return after


def _check_blocks(body: bytes, marker: bytes, picture: Codestream) -> None:
    """Refuses blocks so small that a decoder needs gigabytes to keep count of them: some 600 bytes for each."""
    has_precincts, coding = (body[:1], body[5:]) if marker == COD else (body[1:2], body[2:])
    if not has_precincts or len(coding) < 5:
        raise Reject('corrupt', 'a JPEG 2000 that does not say how it is coded')
    levels, across, down = coding[0], (coding[1] & 15) + 2, (coding[2] & 15) + 2  # Sides as powers of two.
    precincts = coding[5:] if has_precincts[0] & 1 else b'\xff' * (levels + 1)
    if levels > MOST_LEVELS or len(precincts) < levels + 1:
        raise Reject('corrupt', f'a JPEG 2000 of {levels} levels')
    blocks = 0
    for level in range(levels + 1):  # From the smallest picture to the whole one.
        shrunk = levels - level
        columns = 1 + (picture.width - 1 >> shrunk + min(across, precincts[level] & 15))
        rows = 1 + (picture.height - 1 >> shrunk + min(down, precincts[level] >> 4))
        blocks += columns * rows * picture.components
    if blocks > FEW_BLOCKS + picture.width * picture.height * picture.components // LEAST_BLOCK:
        raise Reject('unsupported_coding', f'JPEG 2000 in {blocks} blocks')


def _last_eoc(data: bytes, position: int, end: int) -> int:
    """Where the last tile ends, which need not say how long it is."""
    after = data.rfind(EOC, position, end)
    if after < 0:
        raise Reject('truncated', f'the JPEG 2000 ends after {end} bytes without an end marker')
    return after


def _size(data: bytes, position: int, end: int) -> tuple[Codestream, int]:
    """What the size marker says, and the number of tiles."""
    values = struct.unpack('>HIIIIIIIIH', _part(data, position, position + 36, end))
    _, right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = values
    if not 1 <= components <= 4:
        raise Reject('unsupported_coding', f'JPEG 2000 with {components} components')
    if not (tile_left <= left < right and tile_top <= top < bottom and tile_width and tile_height):
        raise Reject('corrupt', 'a JPEG 2000 without an area')
    samples = _part(data, position + 36, position + 36 + 3 * components, end)
    depth = max((bits & 0x7F) + 1 for bits in samples[::3])
    if depth > 16 or not all(samples[1::3]) or not all(samples[2::3]):
        raise Reject('unsupported_coding', f'JPEG 2000 with {depth} bits a sample')
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > MOST_TILES:
        raise Reject('unsupported_coding', f'JPEG 2000 in {tiles} tiles')
    return Codestream(right - left, bottom - top, depth, components), tiles
