"""A classifier in two at the place where it is frozen."""

import dataclasses

from finetune.console.lazy import keras


@dataclasses.dataclass(frozen=True)
class Parts:
    """A classifier in two that share its layers: what trains in one of them has changed in the whole."""

    cut: str  # The layer whose output is all that the second part needs; several where the head reads several.
    head_only: bool  # The output is pooled, and all that trains is the head.
    frozen: object  # Images [b, size, size, 3] in [0, 1] -> the output of `cut`.
    trained: object  # The output of `cut` -> logits [b, classes].


def parts(model) -> Parts | None:
    """Parts a classifier at the last place before its trained layers that everything passes through.

    None where nothing is frozen, or where no such place has something frozen before it.
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


def with_features(network):
    """The same classifier, or part of one, giving (logits, the pooled features that its head reads) in one pass."""
    logits, = network.outputs
    head, node = logits._keras_history.operation, logits._keras_history.node_index
    pooled, = head._inbound_nodes[node].input_tensors
    # As another tensor: it may be the input.
    return keras.Model(network.inputs, [logits, keras.layers.Identity(dtype='float32')(pooled)])


def with_features_and_maps(model):
    """A whole classifier giving (logits, pooled features, *the maps [b, h, w, c] that were averaged for them)."""
    maps = model.get_layer('features').input
    return keras.Model(model.inputs, [*with_features(model).outputs, *(maps if isinstance(maps, list) else [maps])])


def _last_cut(backbone):
    """The last tensor before the trained layers that alone connects what is before it to what is after it."""
    layers_ = backbone.layers  # In an order in which every layer comes after those it reads.
    first_trained = next(i for i, layer in enumerate(layers_) if layer.trainable_weights)
    for i in range(first_trained, 0, -1):
        if not any(map(is_frozen, layers_[:i])):
            return None
        before = {id(layer) for layer in layers_[:i]}
        read_after = [tensor for layer in layers_[i:] for tensor in layer._inbound_nodes[0].input_tensors]
        crossing = {id(tensor): tensor for tensor in read_after + backbone.outputs if id(_maker(tensor)) in before}
        if len(crossing) == 1:
            return next(iter(crossing.values()))
    return None


def is_frozen(layer) -> bool:
    """Whether it has weights that would train if they were asked to; the statistics of pixels never do."""
    return bool(layer.weights) and not layer.trainable and not isinstance(layer, keras.layers.Normalization)


def _maker(tensor):
    return tensor._keras_history.operation
