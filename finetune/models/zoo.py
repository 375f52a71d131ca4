"""The networks by name, and the pixels that each of them wants."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable

from finetune.console.errors import Error, UsageError
from finetune.console.lazy import keras
from finetune.models import efficientnet_lite
from finetune.models.classics import alexnet, all_cnn, densenet_bc, mnist_cnn, resnet_cifar


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What a network wants instead of [0, 1]: `x * scale + offset` for each of red, green, blue."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bgr: bool = False
    per_image: bool = False  # Instead: each picture to mean 0 and deviation 1.


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Of ImageNet, for [0, 1] pixels.

ZERO_TO_ONE = Pixels((1.0,) * 3, (0.0,) * 3)
MINUS_ONE_TO_ONE = Pixels((2.0,) * 3, (-1.0,) * 3)
ZERO_TO_255 = Pixels((255.0,) * 3, (0.0,) * 3)
STANDARDIZED = Pixels(tuple(1 / s for s in STD), tuple(-m / s for m, s in zip(MEAN, STD, strict=True)))
BGR_MINUS_MEAN = Pixels((255.0,) * 3, (-123.68, -116.779, -103.939), bgr=True)
EFFICIENTNET_LITE = Pixels((255 / 128,) * 3, (-127 / 128,) * 3)
PER_IMAGE = Pixels((1.0,) * 3, (0.0,) * 3, per_image=True)
# Of CIFAR-10's training pictures, for [0, 255] pixels.
CIFAR_MEAN, CIFAR_STD = (125.307, 122.95, 113.865), (62.9932, 62.0887, 66.7048)
CIFAR_STANDARDIZED = Pixels(
    tuple(255 / s for s in CIFAR_STD), tuple(-m / s for m, s in zip(CIFAR_MEAN, CIFAR_STD, strict=True)))
# Keras divides by sqrt(std) once more when it builds EfficientNet for its ImageNet weights, and only then; here it is
# part of the range, so that those weights see the same pixels whichever way they arrive.
EFFICIENTNET = Pixels(
    tuple(255 / math.sqrt(s) for s in STD),
    tuple(255 * m * (1 - 1 / math.sqrt(s)) for m, s in zip(MEAN, STD, strict=True)),
)


@dataclasses.dataclass(frozen=True)
class Net:
    """One row of the zoo.

    `application` is a class of keras.applications, by name, or a function with the same arguments. `size` is the side
    of the square picture it was made for, in pixels. `width` says whether the network comes in several widths
    (`alpha`), `dropout` where --dropout acts: on what the 'head' reads, inside the 'backbone', or both; `auxiliary`
    which block an auxiliary head can read; `last_blocks` where --trainable_from has the last blocks begin, about a
    third of the work of a pass; `blocks` which layers a head reads side by side on a backbone that stays as it is,
    where that was measured to be better than the last one alone.
    """

    application: str | Callable
    size: int
    pixels: Pixels
    width: bool = False
    dropout: tuple[str, ...] = ('head',)
    auxiliary: str = ''
    last_blocks: str = ''
    blocks: tuple[str, ...] = ()


NETS = {
    'inception_v3': Net('InceptionV3', 299, MINUS_ONE_TO_ONE, auxiliary='mixed7', last_blocks='mixed8',
                        blocks=('mixed8', 'mixed9', 'mixed10')),
    'resnet50': Net('ResNet50', 224, BGR_MINUS_MEAN, last_blocks='conv5_block1'),
    'mobilenet_v2': Net('MobileNetV2', 224, MINUS_ONE_TO_ONE, width=True, last_blocks='block_13',
                        blocks=('block_12_add', 'block_15_add', 'out_relu')),
    'mobilenet': Net('MobileNet', 224, MINUS_ONE_TO_ONE, width=True, last_blocks='conv_dw_12'),
    'mobilenet_v3_small': Net('MobileNetV3Small', 224, ZERO_TO_255, width=True, last_blocks='expanded_conv_8'),
    'mobilenet_v3_large': Net('MobileNetV3Large', 224, ZERO_TO_255, width=True, last_blocks='expanded_conv_12'),
    'efficientnet_b0': Net('EfficientNetB0', 224, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b1': Net('EfficientNetB1', 240, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b2': Net('EfficientNetB2', 260, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b3': Net('EfficientNetB3', 300, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b4': Net('EfficientNetB4', 380, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b5': Net('EfficientNetB5', 456, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b6': Net('EfficientNetB6', 528, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_b7': Net('EfficientNetB7', 600, EFFICIENTNET, last_blocks='block6a'),
    'efficientnet_v2_b0': Net('EfficientNetV2B0', 224, ZERO_TO_255, last_blocks='block6a'),
    'efficientnet_v2_b1': Net('EfficientNetV2B1', 240, ZERO_TO_255, last_blocks='block6a'),
    'efficientnet_v2_b2': Net('EfficientNetV2B2', 260, ZERO_TO_255, last_blocks='block6a'),
    'efficientnet_v2_b3': Net('EfficientNetV2B3', 300, ZERO_TO_255, last_blocks='block6a'),
    'efficientnet_v2_s': Net('EfficientNetV2S', 384, ZERO_TO_255, last_blocks='block6a'),
    'efficientnet_v2_m': Net('EfficientNetV2M', 480, ZERO_TO_255, last_blocks='block7a'),
    'efficientnet_v2_l': Net('EfficientNetV2L', 480, ZERO_TO_255, last_blocks='block7a'),
    'convnext_tiny': Net('ConvNeXtTiny', 224, ZERO_TO_255, last_blocks='convnext_tiny_stage_3'),
    'convnext_small': Net('ConvNeXtSmall', 224, ZERO_TO_255, last_blocks='convnext_small_stage_3'),
    'convnext_base': Net('ConvNeXtBase', 224, ZERO_TO_255, last_blocks='convnext_base_stage_3'),
    'convnext_large': Net('ConvNeXtLarge', 224, ZERO_TO_255, last_blocks='convnext_large_stage_3'),
    'convnext_xlarge': Net('ConvNeXtXLarge', 224, ZERO_TO_255, last_blocks='convnext_xlarge_stage_3'),
    'densenet121': Net('DenseNet121', 224, STANDARDIZED, last_blocks='conv5_block1'),
    'densenet169': Net('DenseNet169', 224, STANDARDIZED, last_blocks='conv5_block1'),
    'densenet201': Net('DenseNet201', 224, STANDARDIZED, last_blocks='conv5_block1'),
    'resnet101': Net('ResNet101', 224, BGR_MINUS_MEAN, last_blocks='conv5_block1'),
    'resnet152': Net('ResNet152', 224, BGR_MINUS_MEAN, last_blocks='conv5_block1'),
    'resnet50_v2': Net('ResNet50V2', 224, MINUS_ONE_TO_ONE, last_blocks='conv5_block1'),
    'resnet101_v2': Net('ResNet101V2', 224, MINUS_ONE_TO_ONE, last_blocks='conv5_block1'),
    'resnet152_v2': Net('ResNet152V2', 224, MINUS_ONE_TO_ONE, last_blocks='conv5_block1'),
    'inception_resnet_v2': Net('InceptionResNetV2', 299, MINUS_ONE_TO_ONE, last_blocks='mixed_7a'),
    'xception': Net('Xception', 299, MINUS_ONE_TO_ONE, last_blocks='block13'),
    'nasnet_mobile': Net('NASNetMobile', 224, MINUS_ONE_TO_ONE),
    'nasnet_large': Net('NASNetLarge', 331, MINUS_ONE_TO_ONE),
    'vgg16': Net('VGG16', 224, BGR_MINUS_MEAN, last_blocks='block5'),
    'vgg19': Net('VGG19', 224, BGR_MINUS_MEAN, last_blocks='block5'),
    # Whose ImageNet weights lie in packages: packages.py has them.
    **{f'efficientnet_lite{scale}': Net(
        functools.partial(efficientnet_lite.backbone, network=f'efficientnet_lite{scale}'), size, EFFICIENTNET_LITE,
        last_blocks='block6a', blocks=(*ends, 'top_activation'))
       for scale, (size, ends) in enumerate(
           ((224, ('block5c', 'block6d')), (240, ('block5d', 'block6e')), (260, ('block5d', 'block6e'))))},
    # The classics, which are trained from scratch: finetune/models has them.
    'mnist_cnn': Net(mnist_cnn.backbone, 28, ZERO_TO_ONE, width=True),
    'alexnet': Net(alexnet.backbone, 224, MINUS_ONE_TO_ONE, width=True, dropout=('backbone', 'head')),
    **{f'resnet{depth}_cifar': Net(
        functools.partial(resnet_cifar.backbone, depth=depth), 32, PER_IMAGE, width=True)
       for depth in (20, 32, 56, 110)},
    'densenet_bc': Net(densenet_bc.backbone, 32, CIFAR_STANDARDIZED, width=True),
    'all_cnn': Net(all_cnn.backbone, 32, ZERO_TO_ONE, width=True, dropout=('backbone',)),
}


def find(name: str) -> Net:
    if name in NETS:
        return NETS[name]
    near = difflib.get_close_matches(name.lower(), NETS, n=3, cutoff=0.4)
    raise UsageError(f'--model={name} is not known. Did you mean {" or ".join(near) or "inception_v3"}? '
                     f'All: {", ".join(NETS)}.')


def backbone(
    name: str, image_size: int, width: float = 1.0, weights: str | None = None, include_top: bool = False,
    dropout: float = 0.0, seed: int = 0,
):
    """The network without its head, its input already in its own pixel range.

    `weights` is None (random) or 'imagenet' (downloaded by Keras, sha checked). `include_top` is for reading published
    heads only. `dropout` acts where the network itself has some.
    """
    net = find(name)
    if width != 1.0 and not net.width:
        raise Error('--width is for networks that come in several widths '
                    f'({", ".join(n for n in NETS if NETS[n].width)}); {name} does not. Leave --width out.')
    if weights and not isinstance(net.application, str):
        raise Error(f'no {weights} weights are published for --model={name}. Leave --pretrained out, or name a run.')
    options = {'alpha': width} if net.width else {}
    if 'backbone' in net.dropout:
        options |= {'dropout': dropout, 'seed': seed}
    shape = None if include_top else (image_size, image_size, 3)
    application = net.application
    if isinstance(application, str):
        application = getattr(keras.applications, application)
    try:
        network = application(include_top=include_top, weights=weights, input_shape=shape, **options)
    except ValueError as error:
        raise Error(f'{name} cannot be built with --image_size={image_size} --width={width}: {error}') from None
    network.name = 'backbone'  # Now: EfficientNetV2 looks its shape up by the name that it is given.
    return network
