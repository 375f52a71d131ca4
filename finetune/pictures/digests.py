"""Which picture it is, of files that differ only in what is not seen: equal digests for equal pictures."""

import hashlib

from PIL import Image

from finetune.pictures import jpeg

ROWS_HASHED = 256  # At a time: a copy of the whole picture may not fit beside it.


def of_jpeg(parsed: jpeg.Jpeg, converted: bool = False) -> bytes:
    """Of the compressed bytes, as a shrunken picture is never decoded whole, and of what changes how they look."""
    profile = parsed.icc if converted else b''
    digest = hashlib.sha256(b'JPEG %d %d ' % (jpeg.orientation(parsed.exif), len(profile)))
    digest.update(profile)
    digest.update(parsed.stripped.replace(jpeg.JFIF, b''))  # Some programs add that header, others leave it out.
    return digest.digest()


def of_pixels(image: Image.Image, turn) -> bytes:
    """Of the decoded values, upright."""
    upright = image if turn is None else image.transpose(turn)
    digest = hashlib.sha256(f'{upright.mode} {upright.size} '.encode())
    for top in range(0, upright.height, ROWS_HASHED):
        rows = upright.crop((0, top, upright.width, min(top + ROWS_HASHED, upright.height)))
        digest.update(rows.tobytes())
    return digest.digest()
