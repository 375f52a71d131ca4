"""One picture in, one picture out: decode, view, distort. [h, w, 3] tensors; all of it works eagerly and in tf.data."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from finetune.console.lazy import tf


@dataclasses.dataclass(frozen=True)
class Distortion:
    """How far training pictures may stray from what was photographed."""

    min_crop_area: float  # The smallest part of the picture that a crop may keep.
    max_aspect: float  # Crops are between 1/max_aspect and max_aspect times as wide as high.
    flip: bool
    color: float  # 1: brightness ±32/255, saturation and contrast 0.5-1.5, hue ±0.2; 0.5 half of that; 0 none.
    shift: float = 0.0  # Moved by up to this share of the side, across and down; what comes in is black.
    whole_pixels: bool = False  # Moved by whole pixels, as a crop from a padded picture is; else by any fraction.


DISTORTIONS = {
    'none': Distortion(1.0, 1.0, False, 0.0),
    'mild': Distortion(0.5, 4 / 3, True, 0.2),  # For small sets of photographs: the subject stays in the picture.
    'inception': Distortion(0.05, 4 / 3, True, 1.0),  # The original's.
    'pad_crop': Distortion(1.0, 1.0, True, 0.0, shift=0.125, whole_pixels=True),  # 4 px of 32.
    'flip_shift': Distortion(1.0, 1.0, True, 0.0, shift=0.125),
}

# Of red, green and blue: gray, and the two numbers that say how far from gray a colour is (NTSC, 1953).
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def decode(encoded):
    """JPEG or PNG bytes -> uint8 [h, w, 3]: the only decoder in train, eval and predict.

    A build judges pictures with Pillow, whose pixels are the same.
    """
    return tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE')


def view(image, size: int, crop_fraction: float):
    """The evaluation view: the central `crop_fraction` of each side, resized to float32 [size, size, 3] in [0, 1]."""
    if crop_fraction < 1:
        image = tf.image.central_crop(image, crop_fraction)
    return _resize(image, size, antialias=True) / 255.0


@functools.lru_cache(maxsize=8)  # Traced once, however often a program asks.
def viewer(size: int, crop_fraction: float) -> Callable:
    """What makes encoded pictures, string [b], what a network looks at, by the steps of evaluation: [b, size, size, 3].
    """
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def views(encoded):
        return tf.map_fn(
            lambda one: view(decode(one), size, crop_fraction), encoded,
            fn_output_signature=tf.TensorSpec((size, size, 3)), parallel_iterations=64)

    return views


def distort(image, size: int, distortion: Distortion, seed):
    """A training view: a random crop, perhaps mirrored and recoloured, float32 [size, size, 3] in [0, 1].

    `seed` (two integers) decides everything: the same picture with the same seed gives the same view.
    """
    # Any other number makes an independent seed, and tf.random.split takes as long as a crop.
    crop_seed, flip_seed, shift_seed, color_seed = (seed * [1, 4] + [0, number] for number in range(4))
    if distortion.min_crop_area < 1:
        image = _random_crop(image, distortion, crop_seed)
    if distortion.flip:  # Before the resize: bytes are mirrored faster than floats.
        image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    image = _quickly_resize(image, size)
    if distortion.shift:
        image = _shift(image, distortion, shift_seed)
    if distortion.color:
        return _recolor(image, distortion.color, color_seed)
    return image / 255.0


def _resize(image, size: int, antialias: bool):
    """Antialiased, a large photograph shrinks to what the eye sees of it and not to every tenth pixel."""
    resized = tf.image.resize(image, (size, size), antialias=antialias)
    resized.set_shape((size, size, 3))
    return resized


def _quickly_resize(image, size: int):
    """Antialiased only where pixels would be passed over: that takes longer than decoding a picture."""
    height, width = tf.unstack(tf.shape(image)[:2])
    return tf.cond(tf.maximum(height, width) > 2 * size,
                   lambda: _resize(image, size, antialias=True), lambda: _resize(image, size, antialias=False))


def _random_crop(image, distortion: Distortion, seed):
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),  # No boxes: any part of the picture may be the subject.
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=(1 / distortion.max_aspect, distortion.max_aspect),
        area_range=(distortion.min_crop_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.slice(image, begin, extent)


def _shift(image, distortion: Distortion, seed):
    size = image.shape[0]
    if distortion.whole_pixels:
        most = round(distortion.shift * size)
        offset = tf.cast(tf.random.stateless_uniform([2], seed, -most, most + 1, tf.int32), tf.float32)
    else:
        offset = distortion.shift * size * tf.random.stateless_uniform([2], seed, -1.0, 1.0)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None], transforms=[[1.0, 0.0, offset[0], 0.0, 1.0, offset[1], 0.0, 0.0]],
        output_shape=[size, size], fill_value=0.0, interpolation='BILINEAR', fill_mode='CONSTANT')
    return tf.ensure_shape(moved[0], image.shape)


def _recolor(image, strength: float, seed):
    """Brightness, saturation, hue, contrast and [0, 255] to [0, 1] in one product; by way of HSV it takes far longer.

    In NTSC's terms a colour is its gray and its distance from gray, in two numbers: hue turns those, saturation
    multiplies them, contrast multiplies all, brightness adds.
    """
    brightness, saturation, hue, contrast = tf.unstack(strength * tf.random.stateless_uniform([4], seed, -1.0, 1.0))
    contrast, chroma, angle = 1 + 0.5 * contrast, 1 + 0.5 * saturation, 2 * math.pi * 0.2 * hue
    side = image.shape[0]
    pixels = next(count for count in range(8, 0, -1) if side**2 % count == 0)  # A 3 x 3 matrix alone is slow.
    shares = contrast / 255 * tf.stack([1.0, chroma * tf.cos(angle), chroma * tf.sin(angle)])
    matrix = tf.tensordot(shares, _color_matrices(pixels), 1)
    gray = tf.reduce_mean(image[::8, ::8]) / 255  # Enough of it.
    offset = brightness * 32 / 255 + (1 - contrast) * gray
    recolored = tf.reshape(image, (-1, 3 * pixels)) @ matrix + offset
    return tf.reshape(tf.clip_by_value(recolored, 0.0, 1.0), image.shape)


def _color_matrices(pixels: int) -> np.ndarray:
    """[3, 3 * pixels, 3 * pixels]: for rows of so many pixels, what gives their gray; their distance from gray; that
    distance turned by 90 degrees.
    """
    gray = np.tile(TO_YIQ[:1].T, 3)
    turn = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]])
    turned = (np.linalg.inv(TO_YIQ) @ turn @ TO_YIQ).T
    return np.stack([np.kron(np.eye(pixels), matrix) for matrix in (gray, np.eye(3) - gray, turned)]).astype(np.float32)
