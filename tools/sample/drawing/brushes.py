"""Brushes: outlines, poses, layers, grounds and light, shared by the flowers and the patterns.

A point is a complex number x + iy in pixels, y down; a shape is drawn around 0, about one unit large, and a
Pose puts it on the sheet. A colour is an array of red, green and blue in 0..255. `rng` is all the randomness.
"""
import dataclasses

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

UP = -1j
SUPERSAMPLING = 2

COLOURS = {name: np.array(rgb, float) for name, rgb in {
    'white': (244, 242, 234), 'cream': (240, 224, 170), 'yellow': (246, 206, 40), 'orange': (240, 134, 34),
    'red': (206, 32, 38), 'pink': (236, 130, 168), 'violet': (136, 74, 182), 'blue': (72, 96, 210),
    'green': (84, 148, 58), 'teal': (40, 146, 140), 'brown': (104, 66, 36), 'black': (34, 28, 34),
}.items()}


@dataclasses.dataclass(frozen=True)
class Pose:
    """Where a shape lands: its origin, its unit in pixels, its turn, the share of its height in view."""
    centre: complex
    scale: float
    angle: float = 0.0
    tilt: float = 1.0

    def __call__(self, points):
        turned = np.asarray(points) * np.exp(1j * self.angle) * self.scale
        return self.centre + turned.real + 1j * self.tilt * turned.imag

    def at(self, point, size=1.0):
        """The pose whose origin lies at a point of this one, and whose unit is `size` of this one's."""
        return dataclasses.replace(self, centre=self(point), scale=self.scale * size)

    def grid(self, size):
        """The points [height, width] that this pose puts on the pixels of a picture of (width, height)."""
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        turned = x - self.centre.real + 1j * (y - self.centre.imag) / self.tilt
        return turned * np.exp(-1j * self.angle) / self.scale


class Layer:
    """A transparent sheet of (width, height), kept larger while we draw so that edges come out smooth."""

    def __init__(self, size):
        self.size = size
        self.sheet = Image.new('RGBA', (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
        self.pen = ImageDraw.Draw(self.sheet)

    def polygon(self, points, colour):
        self.pen.polygon(sheet_coordinates(points), fill=ink(colour))

    def line(self, points, width, colour):
        width = max(1, round(width * SUPERSAMPLING))
        self.pen.line(sheet_coordinates(points), fill=ink(colour), width=width, joint='curve')

    def disc(self, pose, radius, colour):
        self.polygon(pose(circle(radius)), colour)

    def window(self, outline, picture):
        """Lets a picture of the sheet's size show through an outline."""
        mask = Image.new('L', self.sheet.size)
        ImageDraw.Draw(mask).polygon(sheet_coordinates(outline), fill=255)
        self.sheet.paste(picture.resize(self.sheet.size), mask=mask)

    def over(self, picture, blur=0.0, shadow=0j):
        """The picture with this sheet on top, out of focus by `blur` pixels, its shadow moved by `shadow`."""
        sheet = self.sheet.reduce(SUPERSAMPLING)
        if blur:
            sheet = sheet.filter(ImageFilter.GaussianBlur(blur))
        if shadow:
            shade = ImageChops.offset(sheet.getchannel('A'), round(shadow.real), round(shadow.imag))
            shade = shade.filter(ImageFilter.GaussianBlur(abs(shadow) / 2)).point(lambda alpha: alpha * 0.45)
            picture = Image.composite(Image.new('RGB', picture.size), picture, shade)
        return Image.composite(sheet.convert('RGB'), picture, sheet.getchannel('A'))


def sheet_coordinates(points):
    points = np.asarray(points) * SUPERSAMPLING
    return np.stack([points.real, points.imag], axis=-1).ravel().tolist()


def ink(colour):
    return tuple(int(value) for value in np.clip(colour, 0, 255))


def mix(colour, other, share):
    return colour + (other - colour) * share


def varied(colour, rng, amount=14):
    return np.clip(colour + rng.normal(0, amount, 3), 0, 255)


# Outlines.

def circle(radius=1.0):
    return radius * np.exp(2j * np.pi * np.arange(24) / 24)


def petal(width, widest=0.5, sharpness=1.0):
    """The outline of a petal from 0 to 1, widest at a share of its length; below sharpness 1 it is round."""
    along = np.linspace(0, 1, 16)
    half = width / 2 * np.sin(np.pi * along ** (np.log(0.5) / np.log(widest))) ** sharpness
    return np.concatenate([along + 1j * half, (along - 1j * half)[::-1]])


def blob(rng, roughness=0.2):
    angles = 2 * np.pi * np.arange(48) / 48
    waves = sum(rng.normal(0, roughness / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(1, 6))
    return np.clip(1 + waves, 0.3, 2) * np.exp(1j * angles)


def curve(start, bend, end, points=16):
    """The points of a quadratic Bezier curve."""
    t = np.linspace(0, 1, points)
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t ** 2 * end


def around(count, rng, wobble=0.06):
    """`count` directions spread over the circle from a random start, each a little off."""
    turns = (np.arange(count) + rng.normal(0, wobble, count)) / count + rng.random()
    return np.exp(2j * np.pi * turns)


# Strokes.

def shaded(layer, outline, pose, colour, edge=0.72, heart=1.1):
    """Draws an outline in steps from its edge inwards, which reads as a bulging surface."""
    for size in (1.0, 0.88, 0.72, 0.5):
        layer.polygon(pose(outline * size), colour * np.interp(size, (0.5, 1.0), (heart, edge)))


def ring_of_petals(layer, pose, outline, count, length, colour, rng, edge=0.72):
    for direction in around(count, rng):
        light = 1 + 0.13 * direction.real + rng.normal(0, 0.04)
        shaded(layer, outline * direction * length * rng.normal(1, 0.04), pose, colour * light, edge)


def blade(layer, root, tip, width, colour, rng):
    """Draws a leaf of grass that bends from its root to its tip."""
    sideways = 1j * (tip - root)
    bend = (root + tip) / 2 + sideways * rng.uniform(-0.25, 0.25)
    half_width = width / 2 * sideways / abs(sideways)
    layer.polygon(np.concatenate([curve(root - half_width, bend - half_width, tip),
                                  curve(root + half_width, bend + half_width, tip)[::-1]]), colour)


def seeds(layer, pose, radius, count, size, colour):
    """Dots in the golden-angle spiral in which plants pack them."""
    for k in range(count):
        centre = radius * np.sqrt((k + 0.5) / count) * np.exp(2.39996j * k)
        layer.polygon(pose(centre + circle(size)[::3]), colour)


# Grounds: what lies behind.

def noise(size, rng, cells):
    """Smooth random values in 0..1 of shape [height, width], about `cells` hills across."""
    grid = rng.random((cells + 2, cells + 2), dtype=np.float32)
    return np.clip(np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)), 0, 1)


def blend(values, low, high):
    """The picture that is `low` where values [height, width] are 0 and `high` where they are 1."""
    return Image.fromarray(mix(low, high, values[..., None]).clip(0, 255).astype(np.uint8))


def sky(size, rng):
    heights = np.linspace(0, 0.7, size[1])[:, None]
    clouds = noise(size, rng, 4) * rng.uniform(0.2, 0.9)
    blue, pale = varied([92, 148, 214], rng), varied([226, 234, 240], rng)
    return blend(np.maximum(heights, clouds), blue, pale)


def grass(size, rng):
    green = varied(COLOURS['green'], rng, 24)
    layer = Layer(size)
    for _ in range(60):
        root = complex(rng.uniform(0, size[0]), rng.uniform(0.2, 1.3) * size[1])
        tip = root + rng.uniform(0.15, 0.5) * size[1] * np.exp(1j * rng.normal(-np.pi / 2, 0.4))
        blade(layer, root, tip, 0.03 * size[1], varied(green * rng.uniform(0.5, 1.35), rng), rng)
    return layer.over(blend(noise(size, rng, 5), green * 0.35, green * 0.8), blur=rng.uniform(0, 2.5))


def bokeh(size, rng):
    names = rng.choice(['green', 'teal', 'brown', 'yellow', 'pink'], 2)
    tones = [varied(COLOURS[name], rng, 20) for name in names]
    layer = Layer(size)
    for _ in range(14):
        pose = Pose(complex(*rng.uniform(0, 1, 2) * size), rng.uniform(0.04, 0.13) * min(size))
        layer.disc(pose, 1, mix(tones[0], COLOURS['white'], rng.uniform(0, 0.6)))
    return layer.over(blend(noise(size, rng, 3), tones[0] * 0.4, tones[1] * 0.8), blur=min(size) / 40)


def soil(size, rng):
    earth = varied([112, 82, 58], rng, 18)
    crumbs = 0.5 * noise(size, rng, 6) + 0.3 * noise(size, rng, 24) + 0.2 * noise(size, rng, 60)
    return blend(crumbs, earth * 0.35, earth * 1.6)


def wall(size, rng):
    tone = varied(COLOURS[rng.choice(list(COLOURS))], rng, 20)
    return blend(noise(size, rng, 2), mix(tone, COLOURS['black'], 0.5), mix(tone, COLOURS['white'], 0.4))


GROUNDS = (sky, grass, bokeh, soil, wall)


def ground(size, rng):
    return GROUNDS[rng.integers(len(GROUNDS))](size, rng)


# Light: what a camera adds.

def photographed(picture, rng):
    """The picture under uneven, tinted light, a little blurred, with the noise of a sensor."""
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))
    light = rng.uniform(0.7, 1.15) + rng.uniform(0, 0.5) * (noise(picture.size, rng, 1) - 0.5)
    tint = rng.normal(1, 0.06, 3)
    grain = rng.normal(0, rng.uniform(1, 9), (picture.height, picture.width, 1))
    pixels = np.asarray(picture) * light[..., None] * tint + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
