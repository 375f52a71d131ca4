"""From a file's bytes, or from pixels of any size, to what the network looks at: inside the graph."""

from fractions import Fraction

from finetune.console.lazy import tf
from finetune.exporting import orientation
from finetune.pictures.views import decode, view

FINEST = 10_000  # Denominator of a crop fraction.
TRANSPOSED, FLIPPED_ACROSS, FLIPPED_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)  # By EXIF orientation, in turn.


def views_of_files(files, size: int, crop_fraction: float):
    """JPEG, PNG or GIF files, string [b] -> [b, size, size, 3], upright, on white where they are transparent."""
    return tf.map_fn(lambda file: view(_upright(file), size, crop_fraction), files,
                     fn_output_signature=tf.TensorSpec((size, size, 3)))


def views_of_pixels(pixels, size: int, crop_fraction: float):
    """uint8 [b, h, w, 3] -> [b, size, size, 3], by the operations of the view that training and `predict` see."""
    return tf.map_fn(lambda image: view(image, size, crop_fraction), pixels,
                     fn_output_signature=tf.TensorSpec((size, size, 3)))


def views_by_products(pixels, size: int, crop_fraction: float):
    """The same as two products of matrices, which every format knows."""
    batch, height, width = tf.unstack(tf.shape(pixels)[:3])
    down, across = _resizing(height, size, crop_fraction), _resizing(width, size, crop_fraction)
    rows = tf.reshape(tf.cast(pixels, tf.float32) / 255, [batch, height, width * 3])
    rows = tf.reshape(tf.matmul(down, rows), [batch, size, width, 3])
    views = tf.matmul(across, rows)
    return tf.reshape(views, [batch, size, size, 3])


def _resizing(length, size: int, crop_fraction: float):
    """float32 [size, length]: crops centrally and resizes as `views.view` does, by a triangle wide enough to see all.
    """
    left_out = 1 - Fraction(crop_fraction).limit_denominator(FINEST)
    start = length * left_out.numerator // (2 * left_out.denominator)
    kept = tf.cast(length - 2 * start, tf.float32)
    step = kept / size
    centres = (tf.range(size, dtype=tf.float32) + 0.5) * step
    places = tf.cast(tf.range(length) - start, tf.float32) + 0.5
    weights = tf.nn.relu(1 - tf.abs(places[None, :] - centres[:, None]) / tf.maximum(step, 1.0))
    weights *= tf.cast(tf.logical_and(places > 0, places < kept), tf.float32)[None, :]
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


# Files ----------------------------------------------------------------------------------------------------------------


def _upright(file):
    """uint8 [h, w, 3] of a scalar string."""
    beginning = tf.strings.substr(file, 0, 8)
    return tf.cond(
        tf.equal(beginning, b'\x89PNG\r\n\x1a\n'),
        lambda: _on_white(file),
        lambda: tf.cond(tf.equal(tf.strings.substr(file, 0, 2), b'\xff\xd8'),
                        lambda: _turned(decode(file), orientation.of_jpeg(tf.io.decode_raw(file, tf.uint8))),
                        lambda: decode(file)))


def _on_white(file):
    pixels = tf.cast(tf.io.decode_png(file, channels=4), tf.float32)
    opacity = pixels[..., 3:] / 255
    return tf.cast(tf.round(pixels[..., :3] * opacity + 255 * (1 - opacity)), tf.uint8)


def _turned(image, number):
    def where(orientations: tuple, turn):
        return tf.cond(tf.reduce_any(number == tf.constant(orientations)), lambda: turn(image), lambda: image)

    image = where(TRANSPOSED, lambda image: tf.transpose(image, [1, 0, 2]))
    image = where(FLIPPED_ACROSS, lambda image: tf.reverse(image, [1]))
    return where(FLIPPED_DOWN, lambda image: tf.reverse(image, [0]))
