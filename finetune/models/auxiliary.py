"""The auxiliary head of Inception-v3 (Szegedy et al., arXiv:1512.00567): a second answer, from the middle.

It trains with the network, so that gradients reach the lower layers sooner, and answers nothing afterwards.
"""

from finetune.console.lazy import keras


def head(shape: tuple[int, int, int], classes: int, batch_norm_momentum: float, seed: int):
    """A block's output [b, h, w, c] -> logits [b, classes].

    17x17 become 5x5 and then 1x1, as in the original. Of maps of another size the same layers see what there is: the
    average is over 5x5 at most, and the last convolution covers whatever is left.
    """
    block = keras.Input(shape, name='block')
    x = keras.layers.AveragePooling2D(min(5, *shape[:2]), strides=3, name='aux_pool')(block)
    x = _convolution(x, 128, (1, 1), 0.1, batch_norm_momentum, seed, 'aux_conv1')
    x = _convolution(x, 768, x.shape[1:3], 0.01, batch_norm_momentum, seed + 1, 'aux_conv2')
    start = keras.initializers.TruncatedNormal(stddev=0.001, seed=seed + 2)
    flat = keras.layers.Flatten(name='aux_flat')(x)
    logits = keras.layers.Dense(classes, kernel_initializer=start, dtype='float32', name='logits')(flat)
    return keras.Model(block, logits, name='auxiliary')


def _convolution(x, filters: int, size, stddev: float, batch_norm_momentum: float, seed: int, name: str):
    start = keras.initializers.TruncatedNormal(stddev=stddev, seed=seed)
    x = keras.layers.Conv2D(filters, size, use_bias=False, kernel_initializer=start, name=name)(x)
    x = keras.layers.BatchNormalization(
        momentum=batch_norm_momentum, epsilon=0.001, scale=False, name=f'{name}_bn')(x)
    return keras.layers.Activation('relu', name=f'{name}_relu')(x)
