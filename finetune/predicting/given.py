"""Pictures as a program has them: paths and folders, the bytes of files, images of Pillow, arrays."""

import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from finetune.console.errors import Reject
from finetune.predicting.asked import Named, find_pictures

AS_PNG = {'1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I', 'I;16'}  # Modes of Pillow that PNG keeps without loss,
AS_TIFF = {'CMYK', 'LAB', 'YCbCr', 'F'}  # and those that TIFF does. The gate judges them as it judges files.
ARRAYS = 'uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]'


class Held(NamedTuple):
    """A picture that is no file, with what would stand in one, or why it will not be judged."""

    picture: bytes
    rejected: Reject | None = None
    path: str = ''


def find(pictures: Any, max_bytes: int) -> Iterator[Named | Held]:
    """One picture or several, each as `finetune predict` would find it were it a file.

    An image or array is encoded without loss at the moment it is asked for: whoever gave it may use it again. Raises
    TypeError for what is none of these.
    """
    for picture in [pictures] if _is_one(pictures) else pictures:
        if isinstance(picture, (str, os.PathLike)):
            path = os.fsdecode(picture)
            yield from find_pictures(['./-' if path == '-' else path])  # Not the standard input of a program.
        else:
            yield _held(picture, max_bytes)


def _is_one(pictures) -> bool:
    """A text is no list of letters, nor an image one of rows; an array of names, or a column of a table, is a list."""
    return isinstance(pictures, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)) or (
        hasattr(pictures, '__array__') and np.ndim(pictures) < 4 and np.asarray(pictures).dtype.kind not in 'OUS')


def _held(picture, max_bytes: int) -> Held:
    try:
        return Held(_content(picture, max_bytes))
    except Reject as reject:
        return Held(b'', reject)


def _content(picture, max_bytes: int) -> bytes:
    """What would stand in the file."""
    if isinstance(picture, (bytes, bytearray, memoryview)):
        if not len(picture):
            raise Reject('empty_file', '0 bytes')
        if len(picture) > max_bytes:
            raise Reject('file_too_big', f'{len(picture)} bytes; the limit is {max_bytes}')
        return bytes(picture)
    if isinstance(picture, Image.Image):
        return _encoded(picture)
    if hasattr(picture, '__array__'):
        return _encoded(_image(np.asarray(picture)))
    raise TypeError(f'{type(picture).__name__} is no picture: give paths, the bytes of files, images of Pillow, or '
                    f'arrays, {ARRAYS}')


def _image(pixels: np.ndarray) -> Image.Image:
    of_channels = pixels.shape[2:] if pixels.ndim in (2, 3) else (0,)
    if pixels.dtype != np.uint8 or of_channels not in ((), (1,), (3,), (4,)) or not pixels.size:
        shape = ', '.join(map(str, pixels.shape))
        raise Reject('unfit_array', f'{pixels.dtype} [{shape}]; expected {ARRAYS}')
    return Image.fromarray(pixels[..., 0] if of_channels == (1,) else np.ascontiguousarray(pixels))


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    try:
        if image.mode in AS_PNG:
            # Fast rather than small: the file lives for as long as it takes to judge it.
            image.save(file, 'PNG', compress_level=1, exif=image.getexif())
        else:
            (image if image.mode in AS_TIFF else image.convert('RGB')).save(file, 'TIFF', exif=image.getexif())
    except (OSError, ValueError, SyntaxError) as error:  # Of an image that Pillow had opened and not yet read.
        raise Reject('corrupt', str(error)) from None
    return file.getvalue()
