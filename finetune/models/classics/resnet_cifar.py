"""The ResNets for small pictures (He et al., arXiv:1512.03385, 4.2): 6n + 2 layers, shortcuts without weights."""

from finetune.console.lazy import LazyModule, keras

layers = LazyModule('finetune.models.layers')


def backbone(include_top: bool, weights, input_shape, depth: int, alpha: float = 1.0):
    """[b, h, w, 3] -> [b, h/4, w/4, 64 * alpha]. `depth` is 6n + 2, as 20, 32, 56 and 110 are."""
    assert not include_top and weights is None
    assert depth % 6 == 2
    pixels = keras.Input(input_shape)
    x = keras.layers.Activation('relu', name='conv1_relu')(_convolution(pixels, round(16 * alpha), 1, 'conv1'))
    for group, filters in enumerate((16, 32, 64), 2):
        for block in range(1, depth // 6 + 1):
            stride = 2 if group > 2 and block == 1 else 1
            x = _block(x, round(filters * alpha), stride, f'conv{group}_block{block}')
    return keras.Model(pixels, x)


def _block(x, filters: int, stride: int, name: str):
    shortcut = x if stride == 1 else layers.PaddedShortcut(filters, stride, name=f'{name}_shortcut')(x)
    x = _convolution(x, filters, stride, f'{name}_1')
    x = keras.layers.Activation('relu', name=f'{name}_1_relu')(x)
    x = _convolution(x, filters, 1, f'{name}_2')
    x = keras.layers.Add(name=f'{name}_add')([shortcut, x])
    return keras.layers.Activation('relu', name=f'{name}_out')(x)


def _convolution(x, filters: int, stride: int, name: str):
    """3x3 and batch normalisation."""
    x = keras.layers.Conv2D(
        filters, 3, stride, 'same', use_bias=False, kernel_initializer='he_normal', name=f'{name}_conv')(x)
    return keras.layers.BatchNormalization(epsilon=1e-5, name=f'{name}_bn')(x)
