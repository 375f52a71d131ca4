"""AlexNet on one tower (Krizhevsky, arXiv:1404.5997): five convolutions and three dense layers, the last in the head.

Pictures of 64 px and more get the stem for 224 px, smaller ones a stem that keeps their few pixels. The widths and
the response normalisation are those of the network that was once compared with ResNet on MNIST.
"""

from finetune.console.lazy import LazyModule, keras

layers = LazyModule('finetune.models.layers')

SMALL = 64  # px: below, the stem for 224 px would leave nothing.
RADIUS, NORM_ALPHA, NORM_BETA = 4, 0.001 / 9, 0.75


def backbone(include_top: bool, weights, input_shape, alpha: float = 1.0, dropout: float = 0.0, seed: int = 0):
    """[b, h, w, 3] -> [b, 1, 1, 4096 * alpha]; with 224 px and 1000 outputs it has 61,100,840 parameters.

    `dropout` acts between the two dense layers here; the head has its own after them.
    """
    assert not include_top and weights is None
    small = input_shape[0] < SMALL
    padding = 'same' if small else 'valid'  # Of the pooling: 28 -> 14 -> 7 -> 4 px, or 55 -> 27 -> 13 -> 6.
    pixels = keras.Input(input_shape)
    if small:
        x = _convolution(pixels, 64 * alpha, 5, 'conv1')
    else:
        padded = keras.layers.ZeroPadding2D(2, name='pad1')(pixels)
        x = _convolution(padded, 64 * alpha, 11, 'conv1', strides=4, padding='valid')
    x = _normalization(_pool(x, padding, 'pool1'), 'norm1')
    x = _convolution(x, 192 * alpha, 5, 'conv2')
    x = _normalization(_pool(x, padding, 'pool2'), 'norm2')
    for number, filters in enumerate((384, 256, 256), 3):
        x = _convolution(x, filters * alpha, 3, f'conv{number}')
    x = _pool(x, padding, 'pool5')
    x = _dense(keras.layers.Flatten(name='flat')(x), 4096 * alpha, 'dense6')
    x = keras.layers.Dropout(dropout, seed=seed + 6, name='dropout6')(x)
    x = _dense(x, 4096 * alpha, 'dense7')
    return keras.Model(pixels, keras.layers.Reshape((1, 1, -1), name='feature_map')(x))


def _convolution(x, filters: float, size, name: str, strides: int = 1, padding: str = 'same'):
    return keras.layers.Conv2D(
        round(filters), size, strides, padding, activation='relu', kernel_initializer='he_normal', name=name)(x)


def _dense(x, units: float, name: str):
    return keras.layers.Dense(round(units), activation='relu', kernel_initializer='he_normal', name=name)(x)


def _pool(x, padding: str, name: str):
    return keras.layers.MaxPooling2D(3, 2, padding, name=name)(x)


def _normalization(x, name: str):
    return layers.LocalResponseNormalization(RADIUS, NORM_ALPHA, NORM_BETA, name=name)(x)
