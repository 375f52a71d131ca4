"""Tiny drawn pictures and class folders, for every test that needs some."""

import io
import random
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ('crimson', 'forestgreen', 'royalblue', 'goldenrod', 'orchid')


def picture(number: int = 0, size: tuple[int, int] = (32, 24), colour: str = 'crimson') -> Image.Image:
    """A gradient, a disc in the colour, noise that no other number has; white at the top left, to see a turn."""
    rng = random.Random(number)
    width, height = size
    image = Image.linear_gradient('L').resize(size).convert('RGB')
    draw = ImageDraw.Draw(image)
    x, y = rng.randrange(width), rng.randrange(height)
    draw.ellipse((x - height // 3, y - height // 3, x + height // 3, y + height // 3), colour)
    draw.rectangle((0, 0, width // 4, height // 4), 'white')
    noise = Image.frombytes('RGB', (8, 8), rng.randbytes(192))
    image.paste(noise, (width - 8, height - 8))
    return image


def encoded(image: Image.Image, format: str = 'JPEG', **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def class_folders(
    directory: Path, counts: Mapping[str, int], size: tuple[int, int] = (32, 24), first: int = 0
) -> Path:
    """DIRECTORY/CLASS/0.jpg, …: `counts` different pictures of each class, numbered from `first`."""
    for index, (name, count) in enumerate(counts.items()):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            image = picture(1000 * index + number, size, COLOURS[index % len(COLOURS)])
            (folder / f'{number}.jpg').write_bytes(encoded(image, quality=95))
    return directory
