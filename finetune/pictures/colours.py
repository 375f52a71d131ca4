"""The colours of a picture as they are seen, which is how every picture is stored: in sRGB, on white."""

import functools
import io
import itertools
from collections.abc import Callable

from PIL import Image, ImageChops

SAME_COLOUR_LEVELS = 2  # True sRGB profiles of other makers differ so little, by rounding.
PROFILE_SPACES = {'RGB': 'RGB', 'L': 'GRAY', 'CMYK': 'CMYK'}  # Pillow's mode: the space that a profile names.
STRAIGHT = {'RGBa': 'RGBA', 'La': 'LA'}  # By Pillow's modes of colours that are multiplied with their alpha.


def as_seen(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, list[str]]:
    """The picture in RGB, on white where it is transparent, in sRGB; and the notes on what that took."""
    notes = []
    image = image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
        image = _on_white(image)
        notes.append('alpha_flattened')
    if image.mode not in PROFILE_SPACES:
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    if transform := to_srgb(icc, image.mode):
        image = transform(image)
        notes.append('converted_to_srgb')
    if image.mode != 'RGB':
        image = image.convert('RGB')
        notes.append('converted_to_rgb')
    return image, notes


def _on_white(image: Image.Image) -> Image.Image:
    opaque = Image.new('RGBA', image.size, 'white')
    opaque.alpha_composite(image.convert('RGBA'))
    return opaque.convert('RGB')


@functools.lru_cache(maxsize=8)  # Pictures of one camera carry one profile.
def to_srgb(icc: bytes | None, mode: str) -> Callable[[Image.Image], Image.Image] | None:
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
