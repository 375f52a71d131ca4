"""DenseNet-BC for small pictures (Huang et al., arXiv:1608.06993): bottlenecks, and transitions that compress."""

from finetune.console.lazy import keras


def backbone(
    include_top: bool, weights, input_shape, depth: int = 100, growth: int = 12, compression: float = 0.5,
    alpha: float = 1.0,
):
    """[b, h, w, 3] -> [b, h/4, w/4, c]: three dense blocks of (depth - 4) / 6 layers, each adding `growth` channels.

    `alpha` multiplies the growth. 100, 12 and 0.5 with 10 outputs have 769,162 parameters that train.
    """
    assert not include_top and weights is None
    assert depth % 6 == 4
    growth = round(growth * alpha)
    pixels = keras.Input(input_shape)
    x = _convolution(pixels, 2 * growth, 3, 'conv1')
    for block in range(1, 4):
        for layer in range(1, (depth - 4) // 6 + 1):
            name = f'dense{block}_block{layer}'
            new = _convolution(_normalized(x, f'{name}_1'), 4 * growth, 1, f'{name}_1')
            new = _convolution(_normalized(new, f'{name}_2'), growth, 3, f'{name}_2')
            x = keras.layers.Concatenate(name=f'{name}_concat')([x, new])
        if block < 3:
            channels = int(x.shape[-1] * compression)  # Of what there is now, whatever was compressed before.
            x = _convolution(_normalized(x, f'transition{block}'), channels, 1, f'transition{block}')
            x = keras.layers.AveragePooling2D(2, name=f'transition{block}_pool')(x)
    return keras.Model(pixels, _normalized(x, 'last'))


def _normalized(x, name: str):
    x = keras.layers.BatchNormalization(epsilon=1e-5, name=f'{name}_bn')(x)
    return keras.layers.Activation('relu', name=f'{name}_relu')(x)


def _convolution(x, filters: int, size: int, name: str):
    return keras.layers.Conv2D(
        filters, size, padding='same', use_bias=False, kernel_initializer='he_normal', name=f'{name}_conv')(x)
