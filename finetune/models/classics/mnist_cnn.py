"""The network of TensorFlow's first MNIST tutorials: two convolutions of 5x5 and a dense layer of 1024."""

from finetune.console.lazy import LazyModule, keras

layers = LazyModule('finetune.models.layers')


def backbone(include_top: bool, weights, input_shape, alpha: float = 1.0):
    """[b, h, w, 3] -> [b, 1, 1, 1024 * alpha]; with 28 px and 10 outputs it has 3,274,634 parameters.

    Weights start as in the original (truncated normal of 0.1), but biases at 0.1: with the original's 1.0 and its
    dense layer of 3136 inputs the first outputs are ten times as large.
    """
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    x = layers.Gray(name='gray')(pixels)
    for number, filters in enumerate((32, 64), 1):
        x = keras.layers.Conv2D(round(filters * alpha), 5, padding='same', name=f'conv{number}', **_start())(x)
        x = keras.layers.MaxPooling2D(2, padding='same', name=f'pool{number}')(x)
    x = keras.layers.Flatten(name='flat')(x)
    x = keras.layers.Dense(round(1024 * alpha), name='dense', **_start())(x)
    return keras.Model(pixels, keras.layers.Reshape((1, 1, -1), name='feature_map')(x))


def _start() -> dict:
    """New ones for every layer: an initializer gives the same numbers whenever it is asked."""
    return {'activation': 'relu', 'kernel_initializer': keras.initializers.TruncatedNormal(stddev=0.1),
            'bias_initializer': keras.initializers.Constant(0.1)}
