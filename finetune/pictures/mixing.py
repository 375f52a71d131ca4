"""Two training pictures become two others, each with a share of both labels."""

import dataclasses

from finetune.console.lazy import tf


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How: one of them is above 0; where both are, half of the pairs get the one and half the other."""

    mixup: float = 0.0  # Alpha of Beta(alpha, alpha), which the share of a picture is drawn from (Zhang et al. 2018).
    cutmix: float = 0.0  # The same of a picture that gets a rectangle of the other one (Yun et al. 2019).


def mixed(images, mixing: Mixing, seeds):
    """(images, shares [n]) of images [n, side, side, 3], n even: of each pair of neighbours both, with their partner.

    A picture has its share of its own label, and the rest of its partner's. `seeds` [n/2, 2] decide it for each pair.
    """
    side = images.shape[1]
    masks = tf.map_fn(lambda seed: _of_itself(side, mixing, seed), seeds, fn_output_signature=tf.TensorSpec(
        (side, side), tf.float32))[:, None, :, :, None]
    pairs = tf.reshape(images, (-1, 2, side, side, 3))
    found = masks * pairs + (1 - masks) * tf.reverse(pairs, axis=[1])
    shares = tf.repeat(tf.reduce_mean(masks, axis=[1, 2, 3, 4]), 2)
    return tf.reshape(found, (-1, side, side, 3)), shares


def partners(values):
    """[n]: of each pair of neighbours the other one's."""
    return tf.reshape(tf.reverse(tf.reshape(values, (-1, 2)), axis=[1]), (-1,))


def _of_itself(side: int, mixing: Mixing, seed):
    """[side, side]: what each pixel of a picture keeps of itself."""
    choice_seed, share_seed, place_seed = (seed * [1, 4] + [0, number] for number in range(3))
    whole = tf.ones((side, side))
    if not mixing.cutmix:
        return whole * _beta(mixing.mixup, share_seed)
    rectangle = 1 - _rectangle(side, 1 - _beta(mixing.cutmix, share_seed), place_seed)
    if not mixing.mixup:
        return rectangle
    is_mixup = tf.random.stateless_uniform([], choice_seed) < 0.5
    return tf.where(is_mixup, whole * _beta(mixing.mixup, share_seed), rectangle)


def _beta(alpha: float, seed):
    first, second = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    return tf.math.divide_no_nan(first, first + second)


def _rectangle(side: int, area, seed):
    """1 inside a square of that share of the picture around any point of it, as far as it lies inside; else 0."""
    half = tf.sqrt(area) / 2
    centre = tf.random.stateless_uniform([2], seed)
    pixels = (tf.range(side, dtype=tf.float32) + 0.5) / side
    down, across = (tf.cast(tf.abs(pixels - centre[axis]) < half, tf.float32) for axis in range(2))
    return down[:, None] * across[None, :]
