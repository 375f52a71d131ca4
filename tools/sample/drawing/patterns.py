"""Patterns: the many classes from which a small backbone learns to see: each a motif in a pair of colours.

The motifs differ in what tells things apart in photographs: symmetry, number and width of parts, layering,
branching, direction and grain. Number, place, size, slant, ground, clutter and light vary within a class.
"""
import numpy as np

from tools.sample.drawing.brushes import (
    COLOURS,
    UP,
    Layer,
    Pose,
    around,
    blade,
    blend,
    blob,
    circle,
    curve,
    ground,
    mix,
    noise,
    petal,
    photographed,
    ring_of_petals,
    seeds,
    shaded,
    varied,
)

# Motifs: (layer, pose, colour, accent, rng) draws one.


def petals(count, outline, hub):
    def motif(layer, pose, colour, accent, rng):
        ring_of_petals(layer, pose, outline, count, 1, colour, rng)
        shaded(layer, circle(hub), pose, accent)
    return motif


def whorl(layer, pose, colour, accent, rng):
    """Rings of petals that grow shorter and change colour inwards."""
    for share in np.linspace(0, 1, 6):
        ring_of_petals(layer, pose, petal(0.42, 0.6), 11, 1 - 0.85 * share, mix(colour, accent, share), rng)


def shells(layer, pose, colour, accent, rng):
    """Discs that turn inwards, each with a rim of the accent."""
    for k, size in enumerate(np.linspace(0.65, 0.1, 14)):
        disc = pose.at((1 - size) * 0.6 * np.exp(1.2j * k), size)
        layer.disc(disc, 1, accent)
        layer.disc(disc, 0.86, colour * rng.normal(0.9, 0.08))


def burst(layer, pose, colour, accent, rng):
    for direction in around(rng.integers(40, 60), rng, 0.5):
        tip = direction * rng.uniform(0.75, 1)
        layer.line(pose([0, tip]), 0.03 * pose.scale, colour * rng.uniform(0.7, 1.1))
        layer.disc(pose.at(tip), 0.06, accent)


def tuft(layer, pose, colour, accent, rng):
    """A fan of thin strips that stands on a knob."""
    for lean in rng.uniform(-0.9, 0.9, 40):
        strip = petal(0.09) * UP * np.exp(1j * lean) * rng.uniform(0.8, 1.2)
        layer.polygon(pose.at(0.4j)(strip), colour * rng.uniform(0.65, 1.15))
    shaded(layer, petal(0.6) * 0.7j, pose.at(0.3j), accent)


def cone(layer, pose, colour, accent, rng):
    shaded(layer, circle(), pose, colour)
    seeds(layer, pose, 0.95, 120, 0.05, accent)


def leaf(layer, pose, colour, accent, rng):
    shaded(layer, petal(rng.uniform(0.6, 0.9), 0.45) * 2, pose.at(-1), colour)
    layer.line(pose([-1, 1]), 0.05 * pose.scale, accent)
    for along in np.linspace(-0.7, 0.5, 6):
        for side in (0.3j, -0.3j):
            layer.line(pose([along, along + 0.3 + side]), 0.03 * pose.scale, accent)


def fern(layer, pose, colour, accent, rng):
    stalk = curve(-1, rng.uniform(-0.6, 0.6) * 1j, 1, 18)
    layer.line(pose(stalk), 0.05 * pose.scale, accent)
    for knot, length in zip(stalk, np.linspace(0.7, 0.1, 18), strict=True):
        for side in (1.1j, -1.1j):
            shaded(layer, petal(0.3) * np.exp(side), pose.at(knot, length), colour)


def branches(layer, pose, colour, accent, rng, forks=4):
    layer.line(pose([-1, 0]), 0.12 * pose.scale, colour)
    if forks == 0:
        layer.disc(pose, 0.4, accent)
        return
    for turn in (-0.65, 0.65):
        arm = np.exp(1j * (turn + rng.normal(0, 0.15)))
        longer = Pose(pose(0.65 * arm), 0.65 * pose.scale, pose.angle + np.angle(arm), pose.tilt)
        branches(layer, longer, colour, accent, rng, forks - 1)


def berries(layer, pose, colour, accent, rng):
    for x, y in rng.normal(0, 0.42, (16, 2)):
        layer.line(pose([1.2j, x + 1j * y]), 0.04 * pose.scale, accent)
        shaded(layer, circle(0.24), pose.at(x + 1j * y), colour * rng.uniform(0.8, 1.1), edge=0.5, heart=1.4)


def crown(layer, pose, colour, accent, rng):
    zigzag = np.array([-0.7 + 0.9j, -1 - 0.8j, -0.45, -0.9j, 0.45, 1 - 0.8j, 0.7 + 0.9j])
    shaded(layer, zigzag, pose, colour)
    layer.line(pose(zigzag[[0, -1]]), 0.3 * pose.scale, accent)


def scales(layer, pose, colour, accent, rng):
    """Rows of overlapping tiles, each with a rim of the accent."""
    for row, y in enumerate(np.linspace(-0.9, 0.9, 7)):
        for x in np.linspace(-0.9, 0.9, 6) + 0.18 * (row % 2):
            layer.disc(pose.at(x + 1j * y), 0.28, accent)
            layer.disc(pose.at(x + 1j * y), 0.22, colour * rng.normal(1, 0.08))


def rings(layer, pose, colour, accent, rng):
    for k, radius in enumerate(np.linspace(1, 0.1, 8)):
        layer.disc(pose, radius, (colour, accent)[k % 2])


def ribbons(layer, pose, colour, accent, rng):
    for k, start in enumerate(np.linspace(-1, 1, 7)):
        bends = rng.uniform(-1.5, 1.5) - 1j
        layer.line(pose(curve(start - 1j, bends, start + 1j)), 0.14 * pose.scale, (colour, accent)[k % 2])


def moons(layer, pose, colour, accent, rng):
    crescent = np.concatenate([circle()[:13], 0.45j + 0.95 * circle()[12::-1]])
    for turn in (0, 2.1, 4.2):
        shaded(layer, crescent * np.exp(1j * turn), pose.at(0.3 * np.exp(1j * turn)), colour)
    shaded(layer, circle(0.3), pose, accent)


# Fields: the values in 0..1 at points [h, w], to be seen through a rough outline.


def waves(points, direction, rng):
    return 0.5 + 0.5 * np.sin((points * np.conj(direction)).real + rng.uniform(0, 6.3))


def stripes(points, rng):
    return waves(points, rng.uniform(9, 14), rng) > 0.5


def bent_stripes(points, rng):
    return waves(points + 0.5 * waves(points, 4j, rng), rng.uniform(10, 16), rng)


def checker(points, rng):
    return (waves(points, 9, rng) > 0.5) ^ (waves(points, 9j, rng) > 0.5)


def spots(points, rng):
    return waves(points, 11, rng) * waves(points, 11j, rng) > 0.45


def weave(points, rng):
    over = waves(points, 5, rng) > 0.5
    return np.where(over, waves(points, 22, rng), waves(points, 22j, rng))


def fur(points, rng):
    directions = rng.uniform(14, 40, 5) * np.exp(1j * rng.normal(0, 0.25, 5))
    return np.mean([waves(points, direction, rng) for direction in directions], axis=0)


def foam(points, rng):
    """Cells around random seeds, dark where two of them meet."""
    centres = rng.uniform(-1.3, 1.3, (20, 2)) @ np.array([1, 1j])
    nearest = np.sort(abs(points[..., None] - centres), axis=-1)
    return np.clip(5 * (nearest[..., 1] - nearest[..., 0]), 0, 1)


def marble(points, rng):
    height, width = points.shape
    return abs(2 * noise((width, height), rng, 9) - 1) ** 0.5


def sand(points, rng):
    height, width = points.shape
    return noise((width, height), rng, 50)


def seen_through(field):
    def motif(layer, pose, colour, accent, rng):
        values = np.asarray(field(pose.grid(layer.size), rng), float)
        layer.window(pose(blob(rng)), blend(values, accent, colour))
    return motif


MOTIFS = {
    'trefoil': petals(3, petal(1.1, 0.6, 0.6), 0.2),
    'cross': petals(4, petal(0.5, 0.75, 0.4), 0.3),
    'pinwheel': petals(5, petal(0.6) * np.exp(0.9j * abs(petal(0.6))), 0.15),
    'star': petals(6, petal(0.35, 0.3, 1.4), 0.25),
    'wheel': petals(9, petal(0.42, 0.75, 0.5), 0.5),
    'fringe': petals(30, petal(0.08), 0.4),
} | {
    motif.__name__: motif
    for motif in (whorl, shells, burst, tuft, cone, leaf, fern, branches, berries, crown, scales, rings,
                  ribbons, moons)
} | {
    field.__name__: seen_through(field)
    for field in (stripes, bent_stripes, checker, spots, weave, fur, foam, marble, sand)
}

PAIRS = (('white', 'yellow'), ('yellow', 'brown'), ('orange', 'yellow'), ('red', 'black'), ('red', 'white'),
         ('pink', 'yellow'), ('violet', 'white'), ('blue', 'orange'), ('green', 'cream'), ('brown', 'teal'))

CLASSES = {f'{motif}-{colour}-{accent}': (motif, colour, accent)
           for motif in MOTIFS for colour, accent in PAIRS}


def draw(name, rng):
    """A picture of one class: its motif, once or several times, between clutter behind and in front."""
    motif, colour, accent = CLASSES[name]
    size = tuple(int(side) for side in rng.integers(112, 144, 2))
    picture = clutter(size, rng, pieces=rng.integers(0, 12)).over(ground(size, rng), blur=rng.uniform(0, 3))
    layer = Layer(size)
    for pose in scattered(rng.choice([1, 1, 1, 2, 3, 6]), size, rng):
        MOTIFS[motif](layer, pose, varied(COLOURS[colour], rng), varied(COLOURS[accent], rng), rng)
    picture = layer.over(picture, blur=rng.uniform(0, 1), shadow=complex(*rng.uniform(-6, 6, 2)))
    picture = clutter(size, rng, pieces=rng.integers(0, 3)).over(picture, blur=rng.uniform(0, 3))
    return photographed(picture, rng)


def scattered(count, size, rng):
    """Poses for `count` things that together fill about the same part of the picture."""
    for _ in range(count):
        scale = min(size) * rng.uniform(0.22, 0.6) / count ** 0.5
        yield Pose(complex(*rng.uniform(0.2, 0.8, 2) * size), scale, rng.uniform(0, 6.3), rng.uniform(0.5, 1))


def clutter(size, rng, pieces):
    """Blobs and blades in colours of their own."""
    layer = Layer(size)
    for _ in range(pieces):
        place, reach = complex(*rng.uniform(0, 1, 2) * size), rng.uniform(0.05, 0.3) * min(size)
        colour = varied(COLOURS[rng.choice(list(COLOURS))] * rng.uniform(0.4, 1.1), rng)
        if rng.random() < 0.5:
            layer.polygon(Pose(place, reach)(blob(rng)), colour)
        else:
            tip = place + 3 * reach * np.exp(1j * rng.uniform(0, 6.3))
            blade(layer, place, tip, 0.4 * reach, colour, rng)
    return layer
