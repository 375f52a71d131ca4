"""The layers that Keras does not have."""

import keras


class PixelRange(keras.layers.Layer):
    """[0, 1] pixels to the range that a network was trained on: `x * scale + offset`, then RGB to BGR if it asks so."""

    def __init__(self, scale, offset, bgr: bool = False, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.scale, self.offset, self.bgr = scale, offset, bgr

    def call(self, pixels):
        scaled = pixels * keras.ops.cast(self.scale, pixels.dtype) + keras.ops.cast(self.offset, pixels.dtype)
        return keras.ops.flip(scaled, axis=-1) if self.bgr else scaled


class AveragePooling(keras.layers.Layer):
    """Feature maps [b, h, w, c], of one layer or of several, to their means side by side [b, sum of c]."""

    def call(self, feature_maps):
        if not isinstance(feature_maps, (list, tuple)):
            feature_maps = [feature_maps]
        return keras.ops.concatenate([keras.ops.mean(each, axis=(1, 2)) for each in feature_maps], axis=-1)
