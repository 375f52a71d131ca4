"""The format of a file by its first bytes, never by its name; of what is not read here, what it is instead."""

from finetune.console.errors import Reject
from finetune.pictures import boxes, png, tiff

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
