"""One exact pass of a model over pictures: every one answered once, whatever the number of towers."""

import dataclasses
import tempfile
from collections.abc import Callable

import numpy as np

from finetune.console.lazy import tf

IN_MEMORY = 2**26  # Bytes of logits: those of 1000 classes for 16,000 pictures.


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
    labels, logits, filenames, extra = [], Rows(), [], []
    for batch in strategy.experimental_distribute_dataset(dataset) if towers > 1 else dataset:
        for tower_labels, tower_filenames, *answers in _per_tower(strategy, tower_outputs(batch)):
            labels.append(tower_labels.numpy())
            of_tower = answers[0].numpy()
            logits.append(of_tower)
            extra.extend(extra_of(features.numpy(), of_tower) for features in answers[1:])
            filenames.extend(tower_filenames.numpy())
            advance(len(tower_labels))
    return Outputs(np.concatenate(labels), logits.joined(), filenames, np.concatenate(extra) if extra else None)


class Rows:
    """Rows of numbers, one part after the other: of very many all but the first lie in a file, which has no name."""

    def __init__(self):
        self._parts, self._bytes, self._file = [], 0, None

    def append(self, part: np.ndarray) -> None:
        self._parts.append(part)
        self._bytes += part.nbytes
        if self._file or self._bytes > IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - It lives as long as what is mapped.
            for waiting in self._parts:
                self._file.write(np.ascontiguousarray(waiting))
            self._parts = [part[:0]]

    def joined(self) -> np.ndarray:
        """[n, …], in memory or mapped to the file."""
        if not self._file:
            return np.concatenate(self._parts)
        self._file.flush()
        row, dtype = self._parts[0].shape[1:], self._parts[0].dtype
        return np.memmap(self._file, dtype, 'r').reshape(-1, *row)


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
