"""Pillow, whose exceptions on bad bytes are verdicts on the bytes."""

import contextlib
import ctypes
import functools
import io
import warnings

from PIL import Image

from finetune.console.errors import Reject

Image.MAX_IMAGE_PIXELS = None  # `gate.Limits` judges every size, before a decoder does.
warnings.filterwarnings('ignore', module='PIL')  # What is odd about one picture is said by its verdict.


def opened(data: bytes, kind: str) -> Image.Image:
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


def load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise _verdict(error) from None


def has_more_frames(image: Image.Image) -> bool:
    try:
        return getattr(image, 'is_animated', False)
    except Exception:  # What follows the first frame is damaged; the first one is whole.
        return True


def _verdict(error: Exception) -> Reject:
    text = str(error).partition('<')[0].strip() or type(error).__name__  # Without "<_io.BytesIO object at …>".
    return Reject('truncated' if 'truncated' in text.lower() else 'corrupt', text)
