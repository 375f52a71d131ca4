"""The layers that Keras does not have."""

import math

import keras
import tensorflow as tf


def apart_on_towers(next_seed):
    """Seeds of dropout that differ between towers, where those of Keras are the same; the first tower keeps its own.

    Eight towers would else drop the same units in each eighth of a batch.
    """
    def apart(*args, **kwargs):
        seed = next_seed(*args, **kwargs)
        context = tf.distribute.get_replica_context()  # None while a network is built for several towers.
        tower = context.replica_id_in_sync_group if context else 0
        return seed + tf.cast(tower, seed.dtype) * tf.constant([0x9E3779B9, 0], seed.dtype)

    return apart


class PixelRange(keras.layers.Layer):
    """[0, 1] pixels to the range that a network was trained on: `x * scale + offset`, then RGB to BGR if it asks so."""

    def __init__(self, scale, offset, bgr: bool = False, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.scale, self.offset, self.bgr = _one_where_all_are(scale), _one_where_all_are(offset), bgr

    def call(self, pixels):
        scaled = pixels * keras.ops.cast(self.scale, pixels.dtype) + keras.ops.cast(self.offset, pixels.dtype)
        return keras.ops.flip(scaled, axis=-1) if self.bgr else scaled


def _one_where_all_are(values):
    """One number is applied to all pixels in one go; three, on a phone, to three numbers at a time."""
    return values[0] if len(set(values)) == 1 else values


class AveragePooling(keras.layers.Layer):
    """Feature maps [b, h, w, c], of one layer or of several, to their means side by side [b, sum of c]."""

    def call(self, feature_maps):
        if not isinstance(feature_maps, (list, tuple)):
            feature_maps = [feature_maps]
        return keras.ops.concatenate([keras.ops.mean(each, axis=(1, 2)) for each in feature_maps], axis=-1)


class PixelsPerImage(keras.layers.Layer):
    """Each picture to mean 0 and standard deviation 1 over all its pixels and colours.

    The deviation counts as 1 / sqrt(number of values) at least, so that an even picture becomes zeros.
    """

    def __init__(self, **kwargs):
        super().__init__(trainable=False, autocast=False, **kwargs)  # A bfloat16 is too coarse for a variance.

    def call(self, pixels):
        pixels = keras.ops.cast(pixels, 'float32')
        mean = keras.ops.mean(pixels, axis=(1, 2, 3), keepdims=True)
        deviation = keras.ops.std(pixels, axis=(1, 2, 3), keepdims=True)
        least = math.prod(pixels.shape[1:]) ** -0.5
        return keras.ops.cast((pixels - mean) / keras.ops.maximum(deviation, least), self.compute_dtype)


class Gray(keras.layers.Layer):
    """[b, h, w, 3] to [b, h, w, 1]: the mean of the colours, which for a grey picture is any one of them."""

    def call(self, pixels):
        return keras.ops.mean(pixels, axis=-1, keepdims=True)


class LocalResponseNormalization(keras.layers.Layer):
    """x / (1 + `alpha` * sum of squares over the channel and `radius` channels on either side) ** `beta`."""

    def __init__(self, radius: int, alpha: float, beta: float, **kwargs):
        super().__init__(**kwargs)
        self.radius, self.alpha, self.beta = radius, alpha, beta

    def call(self, x):
        return tf.nn.local_response_normalization(x, self.radius, bias=1.0, alpha=self.alpha, beta=self.beta)


class PaddedShortcut(keras.layers.Layer):
    """[b, h, w, c] to [b, h/stride, w/stride, channels] without weights: pixels left out, channels of zeros added."""

    def __init__(self, channels: int, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.stride = channels, stride

    def call(self, x):
        missing = self.channels - x.shape[-1]
        kept = x[:, ::self.stride, ::self.stride]
        return keras.ops.pad(kept, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])
