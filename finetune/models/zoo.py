"""The networks by name, and how a classifier is put together: pixel range, backbone, pooled features, head."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Sequence

from finetune.errors import Error, UsageError
from finetune.lazy import LazyModule, keras
from finetune.models import alexnet, all_cnn, auxiliary, densenet_bc, mnist_cnn, resnet_cifar

layers = LazyModule('finetune.models.layers')


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What a network wants instead of [0, 1]: `x * scale + offset` for each of red, green, blue."""

    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bgr: bool = False
    per_image: bool = False  # Instead: each picture to mean 0 and deviation 1.


NEVER = -100.0  # The logit of an output that is switched off.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Of ImageNet, for [0, 1] pixels.

ZERO_TO_ONE = Pixels((1.0,) * 3, (0.0,) * 3)
MINUS_ONE_TO_ONE = Pixels((2.0,) * 3, (-1.0,) * 3)
ZERO_TO_255 = Pixels((255.0,) * 3, (0.0,) * 3)
STANDARDIZED = Pixels(tuple(1 / s for s in STD), tuple(-m / s for m, s in zip(MEAN, STD, strict=True)))
BGR_MINUS_MEAN = Pixels((255.0,) * 3, (-123.68, -116.779, -103.939), bgr=True)
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
    which block an auxiliary head can read.
    """

    application: str | Callable
    size: int
    pixels: Pixels
    width: bool = False
    dropout: tuple[str, ...] = ('head',)
    auxiliary: str = ''


NETS = {
    'inception_v3': Net('InceptionV3', 299, MINUS_ONE_TO_ONE, auxiliary='mixed7'),
    'resnet50': Net('ResNet50', 224, BGR_MINUS_MEAN),
    'mobilenet_v2': Net('MobileNetV2', 224, MINUS_ONE_TO_ONE, width=True),
    'mobilenet': Net('MobileNet', 224, MINUS_ONE_TO_ONE, width=True),
    'mobilenet_v3_small': Net('MobileNetV3Small', 224, ZERO_TO_255, width=True),
    'mobilenet_v3_large': Net('MobileNetV3Large', 224, ZERO_TO_255, width=True),
    'efficientnet_b0': Net('EfficientNetB0', 224, EFFICIENTNET),
    'efficientnet_b1': Net('EfficientNetB1', 240, EFFICIENTNET),
    'efficientnet_b2': Net('EfficientNetB2', 260, EFFICIENTNET),
    'efficientnet_b3': Net('EfficientNetB3', 300, EFFICIENTNET),
    'efficientnet_b4': Net('EfficientNetB4', 380, EFFICIENTNET),
    'efficientnet_b5': Net('EfficientNetB5', 456, EFFICIENTNET),
    'efficientnet_b6': Net('EfficientNetB6', 528, EFFICIENTNET),
    'efficientnet_b7': Net('EfficientNetB7', 600, EFFICIENTNET),
    'efficientnet_v2_b0': Net('EfficientNetV2B0', 224, ZERO_TO_255),
    'efficientnet_v2_b1': Net('EfficientNetV2B1', 240, ZERO_TO_255),
    'efficientnet_v2_b2': Net('EfficientNetV2B2', 260, ZERO_TO_255),
    'efficientnet_v2_b3': Net('EfficientNetV2B3', 300, ZERO_TO_255),
    'efficientnet_v2_s': Net('EfficientNetV2S', 384, ZERO_TO_255),
    'efficientnet_v2_m': Net('EfficientNetV2M', 480, ZERO_TO_255),
    'efficientnet_v2_l': Net('EfficientNetV2L', 480, ZERO_TO_255),
    'convnext_tiny': Net('ConvNeXtTiny', 224, ZERO_TO_255),
    'convnext_small': Net('ConvNeXtSmall', 224, ZERO_TO_255),
    'convnext_base': Net('ConvNeXtBase', 224, ZERO_TO_255),
    'convnext_large': Net('ConvNeXtLarge', 224, ZERO_TO_255),
    'convnext_xlarge': Net('ConvNeXtXLarge', 224, ZERO_TO_255),
    'densenet121': Net('DenseNet121', 224, STANDARDIZED),
    'densenet169': Net('DenseNet169', 224, STANDARDIZED),
    'densenet201': Net('DenseNet201', 224, STANDARDIZED),
    'resnet101': Net('ResNet101', 224, BGR_MINUS_MEAN),
    'resnet152': Net('ResNet152', 224, BGR_MINUS_MEAN),
    'resnet50_v2': Net('ResNet50V2', 224, MINUS_ONE_TO_ONE),
    'resnet101_v2': Net('ResNet101V2', 224, MINUS_ONE_TO_ONE),
    'resnet152_v2': Net('ResNet152V2', 224, MINUS_ONE_TO_ONE),
    'inception_resnet_v2': Net('InceptionResNetV2', 299, MINUS_ONE_TO_ONE),
    'xception': Net('Xception', 299, MINUS_ONE_TO_ONE),
    'nasnet_mobile': Net('NASNetMobile', 224, MINUS_ONE_TO_ONE),
    'nasnet_large': Net('NASNetLarge', 331, MINUS_ONE_TO_ONE),
    'vgg16': Net('VGG16', 224, BGR_MINUS_MEAN),
    'vgg19': Net('VGG19', 224, BGR_MINUS_MEAN),
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


def start_afresh(seed: int, mixed_precision: bool = False) -> None:
    """Makes what is built next depend on nothing that was built before: names of layers, random weights, precision.

    These are global in Keras. Not inside the scope of a strategy, which clearing them would tear down.
    """
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy('mixed_bfloat16' if mixed_precision else 'float32')
    keras.utils.set_random_seed(seed)


def build(
    name: str,
    classes: int,
    *,
    image_size: int,
    width: float = 1.0,
    dropout: float = 0.0,
    batch_norm_trains: bool = True,
    batch_norm_momentum: float = 0.99,
    feature_layers: Sequence[str] = (),
    seed: int = 0,
):
    """A classifier with random weights: [b, image_size, image_size, 3] pixels in [0, 1] -> float32 logits [b, classes].

    Its sub-models `backbone` (pixels in the network's range -> feature map [b, h, w, c], or one of each of
    `feature_layers`) and `head` (pooled features [b, c] -> logits) can be used alone. Unless `batch_norm_trains`, the
    statistics of batch normalisation stay as they are in training too.
    """
    net = find(name)
    body = backbone(name, image_size, width, dropout=dropout, seed=seed)
    if feature_layers:
        body = _ending_at(body, feature_layers)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
            if not batch_norm_trains:
                _keep_as_evaluated(layer)
    images = keras.Input((image_size, image_size, 3), name='image')
    ranged = _pixel_range(net.pixels)(images)
    features = layers.AveragePooling(name='features')(body(ranged))
    head = _head(features.shape[-1], classes, dropout if 'head' in net.dropout else 0.0, seed)
    for layer in (*body.layers, *head.layers):
        if hasattr(layer, 'seed_generator'):
            layer.seed_generator.next = layers.apart_on_towers(layer.seed_generator.next)
    return keras.Model(images, head(features), name='classifier')


def _keep_as_evaluated(layer) -> None:
    """Whatever trains around it, the layer normalises and drops as in evaluation."""
    call = layer.call

    def call_as_evaluated(*args, **options):
        return call(*args, **options | ({'training': False} if 'training' in options else {}))

    layer.call = call_as_evaluated


def _pixel_range(pixels: Pixels):
    if pixels.per_image:
        return layers.PixelsPerImage(name='pixel_range')
    return layers.PixelRange(pixels.scale, pixels.offset, pixels.bgr, name='pixel_range')


def _ending_at(body, feature_layers: Sequence[str]):
    """The backbone without what comes after these layers or blocks; it gives the output of each."""
    ends = [_layers_named(body, name, '--feature_layers')[-1] for name in feature_layers]
    flat = [end.name for end in ends if len(end.output.shape) != 4]
    if flat:
        raise Error(f'--feature_layers={",".join(feature_layers)}: {flat[0]} has no height and width to average over.')
    ending = keras.Model(body.input, [end.output for end in ends], name='backbone')
    ending.whole = lambda: body  # Called, or Keras would count the layers of the rest as ours.
    return ending


def whole(backbone):
    """The network that `backbone` is the beginning of: files number its layers in the order of all of them."""
    return backbone.whole() if hasattr(backbone, 'whole') else backbone


def _head(features: int, classes: int, dropout: float, seed: int):
    pooled = keras.Input((features,), name='features')
    kept = keras.layers.Dropout(dropout, seed=seed, name='dropout')(pooled)
    start = keras.initializers.TruncatedNormal(stddev=0.01, seed=seed)  # The original's: first losses near ln(classes).
    logits = keras.layers.Dense(classes, kernel_initializer=start, dtype='float32', name='logits')(kept)
    return keras.Model(pooled, logits, name='head')


@dataclasses.dataclass(frozen=True)
class Auxiliary:
    """A second head inside a classifier, there in training only."""

    backbone: object  # The classifier's own, which also gives the output of the block.
    head: object  # That output -> logits [b, classes].


def with_auxiliary_head(model, name: str, batch_norm_momentum: float, seed: int) -> Auxiliary:
    """A new auxiliary head for a classifier of the network `name`, whose own weights it leaves as they are."""
    body = model.get_layer('backbone')
    block = next((layer for layer in body.layers if layer.name == find(name).auxiliary), None)
    if block is None:
        raise Error(f'--aux_weight: the auxiliary head of {name} reads {find(name).auxiliary}, which --feature_layers '
                    'leaves out. Name a later layer, or leave --aux_weight out.')
    head = auxiliary.head(block.output.shape[1:], model.output_shape[-1], batch_norm_momentum, seed)
    return Auxiliary(keras.Model(body.input, [body.output, block.output]), head)


def training_logits(model, inputs, auxiliary: Auxiliary | None = None) -> list:
    """The logits that a training step sees: with dropout, and with the statistics of the batch where they train.

    Those of the head, then those of the auxiliary head. `model` is a classifier, or the part of one that trains (see
    `parts`). Layer by layer, because `training=True` at the call of a Keras 3 model overrules whatever its parts were
    built with.
    """
    outputs, more_logits = inputs, []
    for layer in model.layers[1:]:  # After the input.
        modes = {'training': layer.trainable} if layer.name in ('backbone', 'head') else {}
        if auxiliary and layer.name == 'backbone':
            outputs, block = auxiliary.backbone(outputs, **modes)
            more_logits = [auxiliary.head(block, training=True)]
        else:
            outputs = layer(outputs, **modes)
    return [outputs, *more_logits]


def settle(model) -> None:
    """To be called when weights were read into a model: some layers compute with copies of theirs."""
    for layer in model.get_layer('backbone').layers:
        if hasattr(layer, 'finalize_state'):  # Normalization, which EfficientNet begins with.
            layer.finalize_state()


def switch_off(head, classes: Sequence[int]) -> None:
    """Keeps outputs that no training picture has, such as an unused background, from ever being the answer.

    At `NEVER` their probability and their gradient are zero, so that they stay off.
    """
    bias = head.get_layer('logits').bias
    values = bias.numpy()
    values[list(classes)] = NEVER
    bias.assign(values)


@dataclasses.dataclass(frozen=True)
class Parts:
    """A classifier in two that share its layers: what trains in one of them has changed in the whole."""

    cut: str  # The layer whose output is all that the second part needs; several where the head reads several.
    head_only: bool  # The output is pooled, and all that trains is the head.
    frozen: object  # Images [b, size, size, 3] in [0, 1] -> the output of `cut`.
    trained: object  # The output of `cut` -> logits [b, classes].


def parts(model) -> Parts | None:
    """Parts a classifier at the last place before its trained layers that everything passes through.

    None where nothing is frozen, or where no such place has weights before it.
    """
    images = keras.Input(model.input_shape[1:], name='image')
    ranged = model.get_layer('pixel_range')(images)
    backbone, pool, head = (model.get_layer(name) for name in ('backbone', 'features', 'head'))
    if not backbone.trainable_weights:
        pooled = keras.Input(head.input_shape[1:], name='stored')
        cut = ','.join(_maker(output).name for output in backbone.outputs)
        return Parts(cut, True, keras.Model(images, pool(backbone(ranged))), keras.Model(pooled, head(pooled)))
    boundary = _last_cut(backbone)
    if boundary is None:
        return None
    lower = keras.Model(backbone.input, boundary)
    # Keras cannot build a model whose input is one of its outputs as it stands.
    outputs = [keras.layers.Identity()(output) if output is boundary else output for output in backbone.outputs]
    upper = keras.Model(boundary, outputs, name='backbone')
    stored = keras.Input(boundary.shape[1:], name='stored')
    return Parts(
        _maker(boundary).name, False, keras.Model(images, lower(ranged)),
        keras.Model(stored, head(pool(upper(stored)))))


def _last_cut(backbone):
    """The last tensor before the trained layers that alone connects what is before it to what is after it."""
    layers_ = backbone.layers  # In an order in which every layer comes after those it reads.
    first_trained = next(i for i, layer in enumerate(layers_) if layer.trainable_weights)
    for i in range(first_trained, 0, -1):
        if not any(layer.weights for layer in layers_[:i]):
            return None
        before = {id(layer) for layer in layers_[:i]}
        read_after = [tensor for layer in layers_[i:] for tensor in layer._inbound_nodes[0].input_tensors]
        crossing = {id(tensor): tensor for tensor in read_after + backbone.outputs if id(_maker(tensor)) in before}
        if len(crossing) == 1:
            return next(iter(crossing.values()))
    return None


def _maker(tensor):
    return tensor._keras_history.operation


def freeze_before(model, cut: str) -> None:
    """Freezes the backbone below the layer or block `cut`."""
    backbone = model.get_layer('backbone')
    first = backbone.layers.index(_layers_named(backbone, cut, '--trainable_from')[0])
    for layer in backbone.layers[:first]:
        layer.trainable = False
        _keep_as_evaluated(layer)


def _layers_named(body, name: str, flag: str) -> list:
    """The layer of this name, or the layers of the block that begins theirs, as in `block_13` or `conv5_block1`."""
    found = [layer for layer in body.layers if layer.name == name] or [
        layer for layer in body.layers if layer.name.startswith(f'{name}_')]
    if not found:
        names = [layer.name for layer in body.layers]
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.3) or names[-4:]
        raise Error(f'{flag}: the network has no layer or block {name!r}. Some it has: {", ".join(near)}.')
    return found
