"""Small backbones with the interface of keras.applications."""

from finetune.console.lazy import keras


def backbone(include_top, weights, input_shape):
    """Two layers with weights and a batch normalisation."""
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, activation='relu', name='first_conv')(pixels)
    x = keras.layers.BatchNormalization(name='first_bn')(x)
    x = keras.layers.Conv2D(16, 3, strides=2, activation='relu', name='last_conv')(x)
    return keras.Model(pixels, x)


def branching(include_top, weights, input_shape):
    """first -> (left, right) -> sum -> last: everything passes through `first` and through `sum`."""
    pixels = keras.Input(input_shape)
    first = keras.layers.Conv2D(4, 3, name='first')(pixels)
    left = keras.layers.Conv2D(4, 3, name='left')(first)
    right = keras.layers.Conv2D(4, 3, name='right')(first)
    joined = keras.layers.Add(name='sum')([left, right])
    return keras.Model(pixels, keras.layers.Conv2D(4, 3, name='last')(joined))


def normalizing(include_top, weights, input_shape, dropout=0.0, seed=0):
    """Its first layer computes with a copy of its weights, as EfficientNet's does; dropout after each convolution."""
    pixels = keras.Input(input_shape)
    x = keras.layers.Normalization(name='normalization')(pixels)
    for name in ('first', 'last'):
        x = keras.layers.Conv2D(8, 3, strides=2, activation='relu', name=f'{name}_conv')(x)
        x = keras.layers.BatchNormalization(name=f'{name}_bn')(x)
        x = keras.layers.Dropout(dropout, seed=seed, name=f'{name}_dropout')(x)
    return keras.Model(pixels, x)
