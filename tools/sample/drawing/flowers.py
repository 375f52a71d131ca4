"""Flowers: the six kinds of the demo set, told apart by their shape, since each grows in many colours."""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tools.sample.drawing.brushes import (
    COLOURS,
    UP,
    Layer,
    Pose,
    around,
    blade,
    circle,
    curve,
    ground,
    mix,
    petal,
    photographed,
    ring_of_petals,
    seeds,
    shaded,
    varied,
)


def bluebell(layer, pose, colour, rng):
    side = rng.choice([-1, 1])
    stalk = curve(1 + 1.6j, 0.1 - 1.4j, -0.9 - 0.5j, 24).real * side + 1j * curve(1.6j, -1.6j, -0.3j, 24).imag
    layer.line(pose(stalk), 0.05 * pose.scale, COLOURS['green'] * 0.8)
    for k, knot in enumerate(stalk[9::3]):
        hangs_to = knot + 0.12 * side * (-1) ** k + 0.12j
        layer.line(pose([knot, hangs_to]), 0.03 * pose.scale, COLOURS['green'] * 0.8)
        bell(layer, pose, hangs_to, 0.62 - 0.03 * k, varied(colour, rng, 8), rng)


def bell(layer, pose, top, length, colour, rng):
    """A bell that hangs from `top`: a tube whose rim ends in three curled tips."""
    hanging = pose.at(top, length)
    outline = petal(0.42, widest=0.55, sharpness=0.7) * np.exp(1j * rng.normal(np.pi / 2, 0.15))
    for lean, light in ((-0.34, 0.8), (0.34, 0.9), (0, 1.05)):
        shaded(layer, outline * np.exp(1j * lean), hanging, colour * light)


def daisy(layer, pose, colour, rng):
    outline = petal(rng.uniform(0.16, 0.22), widest=0.7, sharpness=0.6)
    ring_of_petals(layer, pose, outline, rng.integers(13, 21), 1, colour, rng)
    shaded(layer, circle(rng.uniform(0.2, 0.28)), pose, COLOURS['yellow'])
    seeds(layer, pose, 0.2, 30, 0.02, COLOURS['orange'])


def poppy(layer, pose, colour, rng):
    outline = petal(rng.uniform(1.1, 1.35), widest=0.68, sharpness=0.5)
    for count in (2, 3):
        for direction in around(count, rng):
            shaded(layer, outline * direction, pose, colour * rng.normal(1, 0.07), edge=0.85, heart=0.95)
            layer.polygon(pose(petal(0.3) * direction * 0.5), COLOURS['black'])
    for direction in around(22, rng):
        layer.line(pose([0, 0.34 * direction]), 0.015 * pose.scale, COLOURS['black'])
        layer.polygon(pose(0.34 * direction + circle(0.03)), COLOURS['black'])
    shaded(layer, circle(0.15), pose, COLOURS['green'])


def rose(layer, pose, colour, rng):
    start = rng.uniform(0, 6.3)
    for k, length in enumerate(np.linspace(1, 0.16, 24)):
        direction = np.exp(1j * (start + 2.39996 * k))
        outline = petal(rng.uniform(1.15, 1.4), widest=0.7, sharpness=0.45) * direction * length
        layer.polygon(pose(outline), mix(colour, COLOURS['white'], 0.25))  # The rim that catches the light.
        layer.polygon(pose(outline * 0.94), colour * (0.5 + 0.45 * length) * rng.normal(1, 0.04))


def sunflower(layer, pose, colour, rng):
    for length in (1, 0.9):
        ring_of_petals(layer, pose, petal(0.24, widest=0.55), rng.integers(15, 20), length, colour, rng)
    shaded(layer, circle(rng.uniform(0.44, 0.54)), pose, COLOURS['brown'], edge=1.0, heart=0.6)
    seeds(layer, pose, 0.46, 110, 0.02, COLOURS['brown'] * 1.7)


def tulip(layer, pose, colour, rng):
    cup = pose.at(0.8j)
    outline = petal(rng.uniform(0.46, 0.56), widest=0.45, sharpness=0.9) * UP * 1.75
    openness = rng.uniform(0.24, 0.4)
    for lean, light in ((-0.5, 0.65), (0.5, 0.7), (-1, 0.85), (1, 0.9), (0, 1.05)):
        shaded(layer, outline * np.exp(1j * lean * openness), cup, colour * light)


class Flower(NamedTuple):
    head: Callable
    colours: tuple[str, ...]
    faces_us: bool  # Seen from the front, a head may be tilted; seen from the side, it stands.


CLASSES = {
    'bluebell': Flower(bluebell, ('blue', 'violet', 'pink', 'white'), False),
    'daisy': Flower(daisy, ('white', 'cream', 'pink', 'violet', 'yellow', 'orange'), True),
    'poppy': Flower(poppy, ('red', 'orange', 'yellow', 'white', 'pink', 'violet'), True),
    'rose': Flower(rose, ('red', 'pink', 'white', 'yellow', 'orange', 'cream'), True),
    'sunflower': Flower(sunflower, ('yellow', 'orange', 'cream', 'red'), True),
    'tulip': Flower(tulip, ('red', 'yellow', 'pink', 'violet', 'orange', 'white'), False),
}


def draw(name, rng):
    """A picture of one or more flowers of one kind."""
    flower = CLASSES[name]
    size = tuple(int(side) for side in rng.integers(140, 280, 2))
    picture = ground(size, rng)
    colour = COLOURS[rng.choice(flower.colours)]
    for blur in (rng.uniform(1, 3), 0):  # From far to near.
        for _ in range(rng.choice([0, 0, 1, 2]) if blur else rng.choice([1, 1, 1, 2, 3])):
            layer = Layer(size)
            grow(layer, size, flower, varied(colour, rng), rng)
            picture = layer.over(picture, blur, shadow=min(size) * complex(*rng.uniform(-0.05, 0.05, 2)))
    return photographed(picture, rng)


def grow(layer, size, flower, colour, rng):
    """Draws one flower with its stem and leaves."""
    short_side = min(size)
    centre = complex(*rng.uniform(0.25, 0.75, 2) * size)
    scale = short_side * rng.uniform(0.14, 0.42)
    green = varied(COLOURS['green'] * rng.uniform(0.6, 1.1), rng, 10)
    root = complex(centre.real + rng.normal(0, 0.15) * short_side, size[1] * 1.1)
    stem = curve(root, (root + centre) / 2 + rng.normal(0, 0.1) * short_side, centre)
    layer.line(stem, max(2, 0.09 * scale), green)
    for joint in rng.choice(stem[:10], 2):
        lean = rng.choice([-1, 1]) * rng.uniform(0.3, 1.1)
        tip = joint + scale * rng.uniform(0.8, 1.8) * UP * np.exp(1j * lean)
        blade(layer, joint, tip, 0.35 * scale, varied(green, rng, 8), rng)
    if flower.faces_us:
        pose = Pose(centre, scale, rng.uniform(0, 6.3), rng.uniform(0.5, 1))
    else:
        pose = Pose(centre, scale, rng.normal(0, 0.2))
    flower.head(layer, pose, colour, rng)
