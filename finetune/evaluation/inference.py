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
    extra: np.ndarray | None = None  # [n, …] what was made of the features, where the network gives them.

    def first(self, count: int) -> 'Outputs':
        extra = None if self.extra is None else self.extra[:count]
        return Outputs(self.labels[:count], self.logits[:count], self.filenames[:count], extra)


def outputs(
    answers_of: Callable, dataset, strategy=None, advance: Callable[[int], None] = lambda count: None,
    extra_of: Callable = lambda features, logits: features,
) -> Outputs:
    """Runs `answers_of` (see `engines.function`) over a finite dataset; `advance` hears the size of every batch.

    It gives logits, or (logits, features). Of a batch's features nothing is kept but `extra_of(features, logits)`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    towers = strategy.num_replicas_in_sync
    if towers > 1:
        answers_of = _of_any_share(answers_of)

    def tower_outputs(batch):
        return strategy.run(
            lambda part: (part['label'], part['filename'], *tf.nest.flatten(answers_of(part['image']))), args=(batch,))

    if towers > 1:  # One tower has its graph in `answers_of`.
        tower_outputs = tf.function(tower_outputs)
    labels, logits, filenames, extra = [], [], [], []
    for batch in strategy.experimental_distribute_dataset(dataset) if towers > 1 else dataset:
        for tower_labels, tower_filenames, *answers in _per_tower(strategy, tower_outputs(batch)):
            labels.append(tower_labels.numpy())
            logits.append(answers[0].numpy())
            extra.extend(extra_of(features.numpy(), logits[-1]) for features in answers[1:])
            filenames.extend(tower_filenames.numpy())
            advance(len(tower_labels))
    return Outputs(np.concatenate(labels), np.concatenate(logits), filenames, np.concatenate(extra) if extra else None)


def _of_any_share(answers_of: Callable) -> Callable:
    """The same, also for the share of a tower that the last batch has no picture left for.

    Not every network runs on nothing, nor do all kernels; so there it runs on a black picture, whose answer is dropped.
    """
    def answers(images):
        count = tf.shape(images)[0]
        black = tf.zeros((1, *images.shape[1:]), images.dtype)
        found = answers_of(tf.cond(count > 0, lambda: images, lambda: black))
        return tf.nest.map_structure(lambda output: output[:count], found)

    return answers


def _per_tower(strategy, parts: tuple) -> zip:
    """(values of each tower, ...) -> one tuple a tower, so that a picture's label stays beside its logits."""
    return zip(*map(strategy.experimental_local_results, parts), strict=True)
