"""The network of TensorFlow's first MNIST tutorials: two convolutions of 5x5 and a dense layer of 1024."""

from finetune.lazy import LazyModule, keras

layers = LazyModule('finetune.models.layers')


def backbone(include_top: bool, weights, input_shape, alpha: float = 1.0):
    """[b, h, w, 3] -> [b, 1, 1, 1024 * alpha]; with 28 px, one colour and 10 outputs it has 3,274,634 parameters.

    The dense layer is a convolution as large as what it sees, so that its output is still a feature map. Weights
    start as in the original (truncated normal of 0.1), but biases at 0.1: with the original's 1.0 and its dense
    layer of 3136 inputs the first outputs are ten times as large.
    """
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    x = layers.Gray(name='gray')(pixels)
    for number, filters in enumerate((32, 64), 1):
        x = _convolution(round(filters * alpha), 5, 'same', f'conv{number}')(x)
        x = keras.layers.MaxPooling2D(2, padding='same', name=f'pool{number}')(x)
    x = _convolution(round(1024 * alpha), x.shape[1:3], 'valid', 'dense')(x)
    return keras.Model(pixels, x)


def _convolution(filters: int, size, padding: str, name: str):
    return keras.layers.Conv2D(
        filters, size, padding=padding, activation='relu', name=name,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.1),
        bias_initializer=keras.initializers.Constant(0.1))
