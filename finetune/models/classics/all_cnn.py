"""All-CNN-C (Springenberg et al., arXiv:1412.6806): strided convolutions where others pool.

The original ends in a 1x1 convolution to the classes and then averages. Averaging first gives the same numbers, so
that convolution is the head.
"""

from finetune.console.lazy import keras

LAYERS = (  # Filters, size, stride; dropout after the strided ones.
    (96, 3, 1), (96, 3, 1), (96, 3, 2),
    (192, 3, 1), (192, 3, 1), (192, 3, 2),
    (192, 3, 1), (192, 1, 1),
)


def backbone(include_top: bool, weights, input_shape, alpha: float = 1.0, dropout: float = 0.0, seed: int = 0):
    """[b, h, w, 3] -> [b, h/4, w/4, 192 * alpha]; with 10 outputs it has 1,369,738 parameters."""
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    x = pixels
    for number, (filters, size, stride) in enumerate(LAYERS, 1):
        x = keras.layers.Conv2D(
            round(filters * alpha), size, stride, 'same', activation='relu', kernel_initializer='he_normal',
            name=f'conv{number}')(x)
        if stride == 2:
            x = keras.layers.Dropout(dropout, seed=seed + number, name=f'dropout{number}')(x)
    return keras.Model(pixels, x)
