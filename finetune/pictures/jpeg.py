"""A JPEG file's segments: what picture it says it is, and the same picture without its metadata and its tail."""

import re
import struct
from dataclasses import dataclass

from finetune.console.errors import Reject

SOI, EOI, SOS, DHT, DQT, DRI, COM, DNL, TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xFE, 0xDC, 0x01
APP = range(0xE0, 0xF0)
RESTARTS = range(0xD0, 0xD8)
SOF_READ_EVERYWHERE = (0xC0, 0xC1, 0xC2)  # Baseline, extended sequential, progressive: Huffman-coded.
SOF_OTHER = {
    0xC3: 'lossless', 0xC5: 'hierarchical', 0xC6: 'hierarchical', 0xC7: 'hierarchical', 0xC9: 'arithmetic',
    0xCA: 'arithmetic', 0xCB: 'arithmetic', 0xCD: 'arithmetic', 0xCE: 'arithmetic', 0xCF: 'arithmetic',
    0xF7: 'JPEG-LS',
}
JFIF = b'\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0'  # Without a density or a small picture, which tools add and change.
SHORTEST_JFIF = 14  # Bytes; decoders pass over a shorter one.
# What one segment of metadata leaves behind whose length is wrong. Decoders have no limit; more is no JPEG any longer.
MOST_STRAY_BYTES = 1 << 16
MOST_SCANS = 200  # A progressive JPEG has about 10. Each costs a walk over the whole picture.

_MARKER = re.compile(rb'\xff[^\0\xff]')  # Any number of FF may fill the space before one; FF 00 is none.
_END_OF_SCAN = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')  # In a scan, FF is followed by 00 or a restart marker.


@dataclass(frozen=True)
class Jpeg:
    height: int
    width: int
    components: int
    whole_sampling: bool  # No component is sampled at a fraction such as 2/3 of another; decoders refuse those.
    rare_coding: str | None  # 'arithmetic', …: what many decoders cannot read; what follows is then empty.
    exif: bytes | None  # A TIFF structure.
    icc: bytes | None
    stray_bytes: int  # Between the segments, where decoders pass over them.
    pictures_follow: bool  # An MPO, as phones write: a preview, or a map of depth or light, stands behind it.
    stripped: bytes  # Frame, tables and scans; of the metadata only what says how the components are coloured.


@dataclass(frozen=True)
class _Frame:
    height: int
    width: int
    components: int
    whole_sampling: bool


def parse(data: bytes) -> Jpeg:
    """Walks from marker to marker to the end of the picture. Raises Reject where a marker or a byte is missing."""
    kept, frame, scans, stray_bytes, position = [b'\xff\xd8'], None, 0, 0, 2
    metadata: list[tuple[int, bytes]] = []
    while True:
        marker, passed_over, position = _marker(data, position)
        stray_bytes += passed_over
        if stray_bytes > MOST_STRAY_BYTES:
            raise Reject('corrupt', f'{stray_bytes} bytes between the segments of a JPEG')
        if marker == EOI:
            break
        if marker in RESTARTS or marker == TEM:
            continue
        body, end = _segment(data, marker, position)
        if marker in SOF_READ_EVERYWHERE and not frame:
            frame = _frame(body)
        elif marker in SOF_OTHER:
            return Jpeg(**vars(_frame(body)), rare_coding=SOF_OTHER[marker], exif=None, icc=None,
                        stray_bytes=stray_bytes, pictures_follow=False, stripped=b'')
        elif marker == SOS:
            scans += 1
            end = _end_of_scan(data, end)
        elif marker not in (DHT, DQT, DRI, COM, DNL) and marker not in APP:
            raise Reject('corrupt', f'marker FF{marker:02X} in a JPEG')
        if marker == APP[0] and body.startswith(b'JFIF\0') and len(body) >= SHORTEST_JFIF:
            kept.append(JFIF)
        elif marker in APP and not (marker == APP[14] and body.startswith(b'Adobe')):
            metadata.append((marker, body))
        elif marker != COM:
            kept.append(b'\xff' + bytes([marker]) + data[position:end])
        position = end
    if not frame or not scans:
        raise Reject('corrupt', 'a JPEG without a picture')
    if scans > MOST_SCANS:
        raise Reject('corrupt', f'{scans} scans; a progressive JPEG has about 10')
    return Jpeg(
        **vars(frame), rare_coding=None, exif=_exif(metadata), icc=_icc(metadata),
        stray_bytes=stray_bytes, pictures_follow=any(body.startswith(b'MPF\0') for _, body in metadata),
        stripped=b''.join(kept) + b'\xff\xd9',
    )


def orientation(exif: bytes | None) -> int:
    """The EXIF orientation 1 to 8 of a TIFF structure; 1, upright, where it is missing or makes no sense."""
    try:
        order = {b'II': '<', b'MM': '>'}[exif[:2]]
        first, = struct.unpack_from(f'{order}I', exif, 4)
        entries, = struct.unpack_from(f'{order}H', exif, first)
        for entry in range(first + 2, first + 2 + 12 * entries, 12):
            tag, kind, _, short = struct.unpack_from(f'{order}HHIH', exif, entry)
            if tag == 0x0112:
                return short if kind == 3 and 1 <= short <= 8 else 1
    except (KeyError, TypeError, struct.error):
        pass
    return 1


def _marker(data: bytes, position: int) -> tuple[int, int, int]:
    """The next marker, how many bytes stand before it that belong to nothing, and where its segment begins."""
    match = _MARKER.search(data, position)
    if match:
        return match[0][1], len(data[position:match.start()].rstrip(b'\xff')), match.end()
    if data[position:].strip(b'\xff'):
        raise Reject('corrupt', f'no JPEG marker at byte {position}')
    raise Reject('truncated', f'the JPEG ends after {len(data)} bytes without an end marker')


def _segment(data: bytes, marker: int, position: int) -> tuple[bytes, int]:
    """What the segment holds and where it ends."""
    end = position + int.from_bytes(data[position:position + 2], 'big')
    body = data[position + 2:end]
    if end > len(data) or position + 2 > len(data):
        named = body[:4].isascii() and body[:4].decode().isprintable()  # As 'JFIF', 'Exif', 'Adobe'.
        if marker in APP and not named:
            raise Reject('corrupt', 'noise after the first bytes of a JPEG')
        raise Reject('truncated', f'the JPEG ends after {len(data)} bytes, inside a header')
    if end < position + 2:
        raise Reject('corrupt', 'a JPEG segment shorter than its own header')
    return body, end


def _end_of_scan(data: bytes, position: int) -> int:
    match = _END_OF_SCAN.search(data, position)
    if not match:
        raise Reject('truncated', f'the JPEG ends after {len(data)} bytes, inside the picture')
    return match.start()


def _frame(body: bytes) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise Reject('corrupt', 'a JPEG frame header of the wrong length')
    precision, height, width, components = struct.unpack_from('>BHHB', body)
    if precision != 8:
        raise Reject('unsupported_coding', f'JPEG with {precision} bits a sample')
    if not height:
        raise Reject('unsupported_coding', 'JPEG that tells its height after the picture')
    if not width or components not in (1, 3, 4):
        raise Reject('corrupt', f'JPEG of width {width} with {components} components')
    factors = [divmod(pair, 16) for pair in body[7::3]]
    if not all(1 <= factor <= 4 for pair in factors for factor in pair):
        raise Reject('corrupt', 'JPEG with an impossible sampling factor')
    widest, highest = (max(axis) for axis in zip(*factors, strict=True))
    whole = all(widest % across == 0 and highest % down == 0 for across, down in factors)
    return _Frame(height, width, components, whole)


def _exif(metadata: list[tuple[int, bytes]]) -> bytes | None:
    header = b'Exif\0\0'
    found = (body[len(header):] for marker, body in metadata if marker == 0xE1 and body.startswith(header))
    return next(found, None)


def _icc(metadata: list[tuple[int, bytes]]) -> bytes | None:
    """The colour profile, which is cut into numbered segments of 64 KiB at most."""
    header = b'ICC_PROFILE\0'
    parts = [body[len(header):] for marker, body in metadata if marker == 0xE2 and body.startswith(header)]
    return b''.join(part[2:] for part in sorted(parts, key=lambda part: part[:1])) or None
