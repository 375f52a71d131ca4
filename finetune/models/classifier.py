"""How a classifier is put together: pixel range, backbone, pooled features, head; and what of it trains."""

import dataclasses
import difflib
from collections.abc import Sequence

from finetune.console.errors import Error
from finetune.console.lazy import LazyModule, keras
from finetune.models import auxiliary, zoo

layers = LazyModule('finetune.models.layers')

NEVER = -100.0  # The logit of an output that is switched off.


def start_afresh(seed: int, mixed_precision: bool = False) -> None:
    """Makes what is built next depend on nothing that was built before, nor on the user's ~/.keras/keras.json.

    Names of layers, random weights, precision, the order of axes: all are global in Keras. Not inside the scope of a
    strategy, which clearing them would tear down.
    """
    keras.utils.clear_session(free_memory=False)
    keras.config.set_image_data_format('channels_last')
    keras.config.set_floatx('float32')
    keras.config.set_epsilon(1e-7)
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
    net = zoo.find(name)
    body = zoo.backbone(name, image_size, width, dropout=dropout, seed=seed)
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


def _pixel_range(pixels: zoo.Pixels):
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
    read = zoo.find(name).auxiliary
    block = next((layer for layer in body.layers if layer.name == read), None)
    if block is None:
        raise Error(f'--aux_weight: the auxiliary head of {name} reads {read}, which --feature_layers leaves out. '
                    'Name a later layer, or leave --aux_weight out.')
    head = auxiliary.head(block.output.shape[1:], model.output_shape[-1], batch_norm_momentum, seed)
    return Auxiliary(keras.Model(body.input, [body.output, block.output]), head)


def training_logits(model, inputs, auxiliary: Auxiliary | None = None) -> list:
    """The logits that a training step sees: with dropout, and with the statistics of the batch where they train.

    Those of the head, then those of the auxiliary head. `model` is a classifier, or the part of one that trains. Layer
    by layer, because `training=True` at the call of a Keras 3 model overrules whatever its parts were built with.
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
