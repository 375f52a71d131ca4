"""One exact pass of a model over pictures: every one answered once, whatever the number of towers."""

import dataclasses
from collections.abc import Callable

import numpy as np

from finetune.console.lazy import tf


@dataclasses.dataclass(frozen=True)
class Outputs:
    labels: np.ndarray  # int32 [n]
    logits: np.ndarray  # float32 [n, classes]
    filenames: list[bytes]  # n


def outputs(
    logits_of: Callable, dataset, strategy=None, advance: Callable[[int], None] = lambda count: None
) -> Outputs:
    """Runs `logits_of` (see `engines.function`) over a finite dataset; `advance` hears the size of every batch."""
    strategy = strategy or tf.distribute.get_strategy()
    towers = strategy.num_replicas_in_sync
    if towers > 1:
        logits_of = _of_any_share(logits_of)

    def tower_outputs(batch):
        return strategy.run(lambda part: (part['label'], logits_of(part['image']), part['filename']), args=(batch,))

    if towers > 1:  # One tower has its graph in `logits_of`.
        tower_outputs = tf.function(tower_outputs)
    labels, logits, filenames = [], [], []
    for batch in strategy.experimental_distribute_dataset(dataset) if towers > 1 else dataset:
        for tower_labels, tower_logits, tower_filenames in _per_tower(strategy, tower_outputs(batch)):
            labels.append(tower_labels.numpy())
            logits.append(tower_logits.numpy())
            filenames.extend(tower_filenames.numpy())
            advance(len(tower_labels))
    return Outputs(np.concatenate(labels), np.concatenate(logits), filenames)


def _of_any_share(logits_of: Callable) -> Callable:
    """The same, also for the share of a tower that the last batch has no picture left for.

    Not every network runs on nothing, nor do all kernels; so there it runs on a black picture, whose answer is dropped.
    """
    def logits(images):
        count = tf.shape(images)[0]
        black = tf.zeros((1, *images.shape[1:]), images.dtype)
        return logits_of(tf.cond(count > 0, lambda: images, lambda: black))[:count]

    return logits


def _per_tower(strategy, parts: tuple) -> zip:
    """(values of each tower, ...) -> one tuple a tower, so that a picture's label stays beside its logits."""
    return zip(*map(strategy.experimental_local_results, parts), strict=True)
