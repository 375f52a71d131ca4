"""What `--histograms` shows in TensorBoard: how weights are spread, and how much of each ReLU's output is zero."""

import itertools
from collections.abc import Callable, Iterable

from finetune.console.lazy import keras, tf
from finetune.runs.summaries import Summaries


def write(summaries: Summaries, step: int, variables: Iterable, zeros: dict) -> None:
    """`zeros` is what `zeros_behind_relus` gives. A channel whose share is 1 is asleep in all pictures."""
    summaries.histograms(step, {f'weights/{variable.path}': variable.numpy() for variable in variables})
    summaries.scalars(step, {f'sparsity/{name}': shares.mean() for name, shares in zeros.items()})
    summaries.histograms(step, {f'sparsity_of_channels/{name}': shares for name, shares in zeros.items()})


def zeros_behind_relus(network) -> Callable:
    """A function batch['image'] -> {layer: share of zeros of each channel [c]}, of the ReLUs in a network's backbone.

    `network` is a classifier, or the part of one that trains; the pictures pass as in evaluation, which changes none
    of its variables.
    """
    before = [layer for layer in network.layers[1:] if layer.name in ('pixel_range', 'backbone')]
    if not before or before[-1].name != 'backbone':
        return lambda images: {}
    backbone = before.pop()
    # Not layer.output: where a part begins in the middle, that is the tensor of the whole network.
    nodes = itertools.chain(*(nodes for _, nodes in sorted(backbone._nodes_by_depth.items(), reverse=True)))
    found = {node.operation.name: node.outputs[0] for node in nodes if _rectifies(node.operation)}
    if not found:
        return lambda images: {}
    outputs_of = keras.Model(backbone.inputs, list(found.values()))

    @tf.function(reduce_retracing=True)
    def shares(images):
        for layer in before:
            images = layer(images)
        return [tf.reduce_mean(tf.cast(output == 0, tf.float32), axis=list(range(output.shape.rank - 1)))
                for output in tf.nest.flatten(outputs_of(images, training=False))]

    return lambda images: {name: share.numpy() for name, share in zip(found, shares(images), strict=True)}


def _rectifies(layer) -> bool:
    return isinstance(layer, keras.layers.ReLU) or getattr(layer, 'activation', None) in (
        keras.activations.relu, keras.activations.relu6)
