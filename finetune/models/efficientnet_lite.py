"""EfficientNet-Lite: EfficientNet (Tan and Le, arXiv:1905.11946) with ReLU6 and without squeeze-and-excitation.

Layers are named as those of keras.applications.EfficientNet are.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from finetune.console.lazy import keras

SCALES = {  # Width, depth.
    'efficientnet_lite0': (1.0, 1.0), 'efficientnet_lite1': (1.0, 1.1), 'efficientnet_lite2': (1.1, 1.2)}
STEM, TOP = 32, 1280  # Channels, whatever the width.
STAGES = (  # Blocks, side of the depthwise kernel, stride of the first block, expansion, channels.
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320))


class Block(NamedTuple):
    name: str
    kernel: int
    stride: int
    expansion: int
    channels: int


def blocks(network: str) -> Iterator[Block]:
    """block1a, block2a, block2b, …; the first and the last stage are one block at any depth."""
    width, depth = SCALES[network]
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES, 1):
        scaled = repeats if number in (1, len(STAGES)) else math.ceil(repeats * depth)
        for letter in 'abcdefgh'[:scaled]:
            yield Block(f'block{number}{letter}', kernel, stride if letter == 'a' else 1, expansion,
                        _multiple_of_8(channels * width))


def _multiple_of_8(channels: float) -> int:
    """The nearest, or the next above where that is more than a tenth fewer."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def backbone(include_top: bool, weights, input_shape, network: str):
    """[b, h, w, 3] -> [b, h/32, w/32, 1280]."""
    assert not include_top and weights is None
    pixels = keras.Input(input_shape)
    x = _relu6(_convolution(pixels, STEM, 3, 2, 'stem_conv', 'stem_bn'), 'stem_activation')
    for block in blocks(network):
        x = _block(x, block)
    return keras.Model(pixels, _relu6(_convolution(x, TOP, 1, 1, 'top_conv', 'top_bn'), 'top_activation'))


def _block(inputs, block: Block):
    """Wider, then each channel by itself, then narrower, around a shortcut where the shape stays."""
    name, x = block.name, inputs
    if block.expansion > 1:
        x = _convolution(
            x, block.expansion * x.shape[-1], 1, 1, f'{name}_expand_conv', f'{name}_expand_bn')
        x = _relu6(x, f'{name}_expand_activation')
    x = keras.layers.DepthwiseConv2D(
        block.kernel, block.stride, 'same', use_bias=False, depthwise_initializer=_start(), name=f'{name}_dwconv')(x)
    x = _relu6(_normalized(x, f'{name}_bn'), f'{name}_activation')
    x = _convolution(x, block.channels, 1, 1, f'{name}_project_conv', f'{name}_project_bn')
    return keras.layers.Add(name=f'{name}_add')([x, inputs]) if x.shape == inputs.shape else x


def _convolution(x, channels: int, side: int, stride: int, name: str, norm: str):
    x = keras.layers.Conv2D(
        channels, side, stride, 'same', use_bias=False, kernel_initializer=_start(), name=name)(x)
    return _normalized(x, norm)


def _normalized(x, name: str):
    return keras.layers.BatchNormalization(epsilon=0.001, name=name)(x)


def _relu6(x, name: str):
    return keras.layers.ReLU(6.0, name=name)(x)


def _start():
    return keras.initializers.VarianceScaling(2.0, 'fan_out', 'truncated_normal')
