"""Softmax regression: the best linear head on features that stay as they are, found without a learning rate.

The loss, cross-entropy plus weight decay, is convex: it has one minimum, which L-BFGS approaches in a few dozen passes
over the features, whatever the seed. How much weight decay is good is asked of a tenth of the pictures that is held
out (of all tenths in turn, where pictures are few; of a sample, where a fit takes long); then the head is fitted to all
of them.
"""

import contextlib
import copy
import ctypes
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.models.classifier import NEVER

ENOUGH = 100  # Held-out pictures to choose by; where a tenth has fewer, several are held out in turn.
WEIGHT_DECAYS = tuple(10.0 ** (-half / 2) for half in range(13))  # 1 to 1e-6, the strongest first.
USUAL = 4  # The place there of 0.01, where the search begins.
SEARCHED = 10**7  # Records x views x classes that the search fits; of more, as many records as make these.
PASSES = 500  # At most; fits of real features need 30 to 150.
TOLERANCE = 1e-5  # Change of the loss, and
SLOPE = 1e-5  # largest part of its gradient, at which a fit ends; smaller ones change no answer that we saw.
MOST_BYTES = 2**32  # The features in float32, which a fit holds once, and
BYTES_A_WEIGHT = 8 * 25  # what L-BFGS remembers.
MANY = 2000  # Records: so many say enough of every channel. Measured on flowers and on CIFAR-10: docs/results.md.
FOLDS = 5  # Parts of the pictures, each answered by a head that was fitted to the others.
PART = 2**20  # Numbers of a tensor of features, so that what is copied to make one is little.
COUNTED = 2**22  # Numbers of answers, and
PARTS = 32  # tensors of features that are counted at once.


@dataclasses.dataclass(frozen=True)
class Trial:
    weight_decay: float
    loss: float  # Cross-entropy of the held-out pictures, in nats.
    precision_at_1: float
    records: int
    seconds: float
    share: float  # Of all records, that it was fitted to; above 1 where many tenths were held out in turn.


class Head(NamedTuple):
    kernel: np.ndarray  # [c, classes]; like the bias zero for classes without pictures.
    bias: np.ndarray  # [classes]
    loss: float
    weight_decay: float


def fit(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int, *,
    label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Head:
    """The best head for features [n, views, c] with labels [n].

    `class_weights` [classes] says what a picture of each class counts in the loss; by default all count the same.
    `seed` decides which pictures are held out; `tell` hears of every weight decay that was tried.
    """
    problem, occurring = _posed(features, labels, label_smoothing, class_weights)
    weight_decay, start = _choose(problem, seed, tell)
    weights, loss = problem.solve(weight_decay, start)
    kernel = np.zeros((features.shape[2], classes), np.float32)
    bias = np.zeros(classes, np.float32)
    kernel[:, occurring], bias[occurring] = problem.raw(weights)
    del problem
    _give_memory_back()
    return Head(kernel, bias, loss, weight_decay)


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int, *,
    weight_decay: float | None = None, folds: int = FOLDS, label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None, groups: np.ndarray | None = None,
) -> np.ndarray:
    """Logits [n, classes] for view 0 of every record, each of a head that was fitted without the record.

    What they get right is what a head that was fitted to as many pictures gets right of others. One weight decay is
    chosen for all folds, or given. Records of one number in `groups` [n] are in one fold. Classes without pictures have
    `classifier.NEVER`.
    """
    logits = np.empty((len(labels), classes), np.float32)
    for held_out, found in each_fold(
            features, labels, classes, seed, weight_decay=weight_decay, folds=folds, label_smoothing=label_smoothing,
            class_weights=class_weights, groups=groups):
        logits[held_out] = found
    return logits


def each_fold(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int, *,
    weight_decay: float | None = None, folds: int = FOLDS, label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None, groups: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same a fold at a time, (places of its records, their logits), for those to whom one is enough."""
    problem, occurring = _posed(features, labels, label_smoothing, class_weights)
    weight_decay = weight_decay or _choose(problem, seed, lambda trial: None)[0]
    fold = folds_of(labels, min(folds, len(labels)), seed, groups)
    for number in range(fold.max() + 1):
        held_out = np.flatnonzero(fold == number)
        kernel, bias = problem.raw(problem.solve(weight_decay, without=held_out)[0])
        logits = np.full((len(held_out), classes), NEVER, np.float32)
        logits[:, occurring] = features[held_out, 0].astype(np.float32) @ kernel + bias
        yield held_out, logits
    del problem
    _give_memory_back()


def folds_of(labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """The fold of each record, int [n]: folds of one size, with as even a share of each class as there can be.

    With `groups`, all that have one number there are shared out as one record would be.
    """
    if groups is not None:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        return folds_of(labels[first], min(folds, len(first)), seed)[group]
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
    fold = np.empty(len(labels), int)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def folds_asked(features: np.ndarray, labels: np.ndarray) -> int:
    """How many folds are worth their time: of so much that the search asks a sample, one says enough."""
    return 1 if features.shape[0] * features.shape[1] * len(np.unique(labels)) > SEARCHED else FOLDS


def _posed(
    features: np.ndarray, labels: np.ndarray, label_smoothing: float, class_weights: Sequence[float] | None
) -> tuple['_Problem', np.ndarray]:
    """The problem, and the classes that it is about: those that have pictures."""
    occurring = np.unique(labels)
    needed = 4 * features.size + BYTES_A_WEIGHT * (features.shape[2] + 1) * len(occurring)
    if needed > MOST_BYTES:
        raise Error(f'to solve for the head of {len(features)} pictures at once takes {needed / 1e9:.0f} GB, too much. '
                    'Train it step by step: add --epochs=10.')
    weights = None if class_weights is None else np.asarray(class_weights, np.float32)[labels]
    problem = _Problem(features, np.searchsorted(occurring, labels), len(occurring), label_smoothing, weights)
    return problem, occurring


def _give_memory_back() -> None:
    """What was freed, to the system: the C library would keep most of it.

    TensorFlow's own memory for oneDNN keeps the features' room all the same, for what TensorFlow does next.
    """
    with contextlib.suppress(AttributeError, OSError):  # Not that of GNU.
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _scipy_on_one_thread() -> Iterator[None]:
    """For L-BFGS, which adds up some thousand numbers at a time: its threads wait for each other busily, so that with
    them a fit to a few thousand pictures takes two to three times as long, to the same bits.
    """
    blas = _scipy_blas()
    threads = blas and blas.scipy_openblas_get_num_threads()
    try:
        if blas:
            blas.scipy_openblas_set_num_threads(1)
        yield
    finally:
        if blas:
            blas.scipy_openblas_set_num_threads(threads)


@functools.cache
def _scipy_blas() -> ctypes.CDLL | None:
    """The library that SciPy's wheels bring along; another one is left as it is."""
    import scipy

    for path in Path(scipy.__file__).parent.with_name('scipy.libs').glob('libscipy_openblas*'):
        with contextlib.suppress(OSError):
            blas = ctypes.CDLL(os.fspath(path))  # It is loaded already: this only finds it.
            if hasattr(blas, 'scipy_openblas_set_num_threads') and hasattr(blas, 'scipy_openblas_get_num_threads'):
                return blas
    return None


def _choose(problem: '_Problem', seed: int, tell: Callable[[Trial], None]) -> tuple[float, np.ndarray]:
    """The weight decay with the lowest loss on held-out tenths, and the weights that it led to.

    The loss has one valley: the search goes from the usual decay by decades the way it falls, then by half a decade.
    """
    asked = problem.sampled(SEARCHED, seed)
    tenths = np.array_split(np.random.default_rng(seed).permutation(asked.records), min(10, asked.records))
    tenths = tenths[:-(-ENOUGH // len(tenths[0]))]
    losses, weights, best = {}, [None] * len(tenths), USUAL

    def is_better(place: int) -> bool:
        nonlocal weights, best
        if place in losses or not 0 <= place < len(WEIGHT_DECAYS):
            return False
        began = time.monotonic()
        fitted = [asked.solve(WEIGHT_DECAYS[place], start, without=tenth)[0]
                  for tenth, start in zip(tenths, weights, strict=True)]
        measured = [asked.measure(each, tenth) for each, tenth in zip(fitted, tenths, strict=True)]
        sizes = [len(tenth) for tenth in tenths]
        trial = Trial(WEIGHT_DECAYS[place], *np.average(measured, axis=0, weights=sizes).tolist(), sum(sizes),
                      time.monotonic() - began, len(tenths) * (asked.records - sizes[0]) / problem.records)
        tell(trial)
        losses[place] = trial.loss
        if trial.loss > losses[best]:
            return False
        weights, best = fitted, place
        return True

    is_better(USUAL)
    for stride in (2, 1):
        for way in (stride, -stride):
            while is_better(best + way):
                pass
    # In a sum of losses it would be the same for any number of records, and this is a mean.
    return WEIGHT_DECAYS[best] * asked.records / problem.records, weights[0]


class _Problem:
    """Rows to fit, one a view. Weights are [c + 1, classes], the bias last, for features of mean 0, scaled."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, classes: int, label_smoothing: float,
        weights: np.ndarray | None = None,
    ):
        """`weights` [records] are what each counts in the loss."""
        self.records, self.views, self.channels = features.shape
        self.labels, self.classes, self.label_smoothing = labels, classes, label_smoothing
        self.weights = np.ones(self.records, np.float32) if weights is None else weights
        self.mean, self.scale = _spread(features)
        records = max(1, PART // (self.views * max(self.channels, classes)))
        with tf.device('CPU'):  # A GPU may multiply with ten bits, and L-BFGS follows every one of them.
            self.rows = [(tf.constant(part) - self.mean) / self.scale for part in _parts(features, records)]

    def _parted(self, of_rows: np.ndarray) -> list[np.ndarray]:
        """What is there for every row, in the parts that the rows are in."""
        return np.split(of_rows, np.cumsum([len(part) for part in self.rows])[:-1])

    def sampled(self, most: int, seed: int) -> '_Problem':
        """Of so many records that their views times the classes make at most `most`."""
        records = max(1, most // (self.views * self.classes))
        if records >= self.records:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(self.records, records, replace=False))
        few = copy.copy(self)
        few.records, few.labels, few.weights = records, self.labels[chosen], self.weights[chosen]
        few.rows = list(self._rows_of(chosen))
        return few

    def _rows_of(self, records: np.ndarray) -> Iterator:
        """All views of these records."""
        wanted = np.isin(np.arange(self.records), records).repeat(self.views)
        with tf.device('CPU'):
            for part, is_wanted in zip(self.rows, self._parted(wanted), strict=True):
                yield tf.boolean_mask(part, is_wanted)

    def solve(
        self, weight_decay: float, start: np.ndarray | None = None, without: Sequence[int] = ()
    ) -> tuple[np.ndarray, float]:
        """(weights, loss) at the minimum over all records but `without`, each with all of its views."""
        from scipy.optimize import minimize  # Here: it takes a third of a second.

        counts = self.weights.copy()
        counts[np.asarray(without, int)] = 0
        shape = (self.channels + 1, self.classes)
        shares = np.repeat(counts / counts.sum() / self.views, self.views)[:, None]
        labels, shares = self._parted(self.labels.repeat(self.views)), self._parted(shares)
        together = max(1, min(PARTS, COUNTED // (len(labels[0]) * self.classes)))
        groups = [[parts[first:first + together] for parts in (self.rows, labels, shares)]
                  for first in range(0, len(labels), together)]

        def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape).astype(np.float32)
            loss, gradient = weight_decay * np.sum(weights[:-1] ** 2) / 2, weight_decay * weights
            gradient[-1] = 0
            with tf.device('CPU'):
                held = tf.constant(weights)
                for group in groups:
                    of_group = _loss_and_gradient()(held, *group, tf.constant(self.label_smoothing, tf.float32))
                    loss += float(of_group[0])
                    gradient += of_group[1].numpy()
            return loss, gradient.ravel().astype(np.float64)

        with _scipy_on_one_thread():
            found = minimize(
                at, np.zeros(shape).ravel() if start is None else start.ravel(), jac=True,
                method='L-BFGS-B', options={'maxiter': PASSES, 'maxfun': 2 * PASSES, 'ftol': TOLERANCE, 'gtol': SLOPE})
        return found.x.reshape(shape).astype(np.float32), float(found.fun)

    def measure(self, weights: np.ndarray, records: np.ndarray) -> tuple[float, float]:
        """(cross-entropy in nats, precision@1) of all views of these records."""
        records = np.sort(records)
        with tf.device('CPU'):
            log_likely = _log_likely(list(self._rows_of(records)), weights).numpy()
        labels = self.labels[records].repeat(self.views)
        losses = -log_likely[np.arange(len(labels)), labels]
        loss = np.average(losses, weights=self.weights[records].repeat(self.views))
        return float(loss), float(np.mean(log_likely.argmax(axis=1) == labels))

    def raw(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kernel, bias) that do the same to features as they came."""
        kernel = weights[:-1] / self.scale[:, None]
        return kernel, weights[-1] - self.mean @ kernel


def _parts(features: np.ndarray, records: int | None = None) -> Iterator[np.ndarray]:
    """float32 [rows, c] of so many records after the other."""
    records = records or max(1, PART // (features.shape[1] * features.shape[2]))
    for first in range(0, len(features), records):
        yield features[first:first + records].reshape(-1, features.shape[2]).astype(np.float32)


def _spread(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) of each channel; an infinite scale for one that varies by less than its precision holds.

    With MANY records that is its deviation. With fewer it moves, as a geometric mean, towards the common one, at most
    halfway: its own makes channels that hardly vary as loud as the others, and of few pictures what they say is chance.
    """
    count = features.shape[0] * features.shape[1]
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in _parts(features)) / count
    squares = sum(np.square(part - mean.astype(np.float32)).sum(axis=0, dtype=np.float64) for part in _parts(features))
    deviation = np.sqrt(squares / count)
    varies = deviation > np.finfo(features.dtype).eps * np.abs(mean)  # Less is rounding, and becomes 0.
    scale = np.full_like(deviation, np.inf)
    own = min(max(len(features) / MANY, 0.5), 1.0)
    scale[varies] = deviation[varies] ** own * np.sqrt(np.mean(np.square(deviation[varies]))) ** (1 - own)
    return mean.astype(np.float32), scale.astype(np.float32)


def _log_likely(rows, weights):
    """[rows of all parts, classes]: the logarithm of each probability."""
    return tf.nn.log_softmax(tf.concat([part @ weights[:-1] for part in rows], axis=0) + weights[-1])


@functools.cache
def _loss_and_gradient() -> Callable:
    """(weights, parts of rows, of labels, of shares in the loss [rows, 1], label smoothing) -> (loss, gradient).

    TensorFlow, not NumPy: the threads of NumPy's BLAS wait for each other busily, so that other work on the machine
    slows small products down a hundred times.
    """
    @tf.function(reduce_retracing=True)
    def loss_and_gradient(weights, rows, labels, shares, label_smoothing):
        classes = tf.shape(weights)[1]
        labels, shares = tf.concat(labels, axis=0), tf.concat(shares, axis=0)
        targets = tf.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / tf.cast(classes, tf.float32)
        log_likely = _log_likely(rows, weights)
        slope = shares * (tf.exp(log_likely) - targets)
        slopes = tf.split(slope, [tf.shape(part)[0] for part in rows])
        by_class = tf.add_n([  # Eight times faster than their transposes.
            tf.matmul(slope, part, transpose_a=True) for slope, part in zip(slopes, rows, strict=True)])
        gradient = tf.concat([tf.transpose(by_class), tf.reduce_sum(slope, axis=0, keepdims=True)], axis=0)
        return -tf.reduce_sum(shares * targets * log_likely), gradient

    return loss_and_gradient
