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
