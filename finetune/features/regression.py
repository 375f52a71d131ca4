"""Softmax regression: the best linear head on features that stay as they are, found without a learning rate.

The loss, cross-entropy plus weight decay, is convex: it has one minimum, which L-BFGS approaches in a few dozen passes
over the features, whatever the seed. How much weight decay is good is asked of a tenth of the pictures that is held
out (of all tenths in turn, where pictures are few); then the head is fitted to all of them.
"""

import contextlib
import ctypes
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.models.classifier import NEVER

ENOUGH = 100  # Held-out pictures to choose by; where a tenth has fewer, several are held out in turn.
WEIGHT_DECAYS = tuple(10.0 ** (-half / 2) for half in range(13))  # 1 to 1e-6, the strongest first.
WORSE = 1.1  # A held-out loss so many times the best one ends the search: weaker decay only makes it worse.
PASSES = 500  # At most; fits of real features need 30 to 150.
TOLERANCE = 1e-5  # Change of the loss, and
SLOPE = 1e-5  # largest part of its gradient, at which a fit ends; smaller ones change no answer that we saw.
MOST_BYTES = 2**32  # In float32: the features, which a fit holds once, and
COPIES_BY_CLASS = 7  # targets, likelihoods, slopes: a number for every view and class each.
MANY = 2000  # Records: so many say enough of every channel. Measured on flowers and on CIFAR-10: docs/results.md.
FOLDS = 5  # Parts of the pictures, each answered by a head that was fitted to the others.
PARTS = 32  # Tensors that hold the features, so that what is copied to make one is little.


@dataclasses.dataclass(frozen=True)
class Trial:
    weight_decay: float
    loss: float  # Cross-entropy of the held-out pictures, in nats.
    precision_at_1: float
    records: int


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
    problem, occurring = _posed(features, labels, label_smoothing, class_weights)
    weight_decay = weight_decay or _choose(problem, seed, lambda trial: None)[0]
    fold = folds_of(labels, min(folds, len(labels)), seed, groups)
    logits = np.full((len(labels), classes), NEVER, np.float32)
    for number in range(fold.max() + 1):
        held_out = np.flatnonzero(fold == number)
        kernel, bias = problem.raw(problem.solve(weight_decay, without=held_out)[0])
        logits[np.ix_(held_out, occurring)] = features[held_out, 0].astype(np.float32) @ kernel + bias
    del problem
    _give_memory_back()
    return logits


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


def _posed(
    features: np.ndarray, labels: np.ndarray, label_smoothing: float, class_weights: Sequence[float] | None
) -> tuple['_Problem', np.ndarray]:
    """The problem, and the classes that it is about: those that have pictures."""
    occurring = np.unique(labels)
    needed = 4 * (features.size + COPIES_BY_CLASS * features.shape[0] * features.shape[1] * len(occurring))
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
    """The weight decay with the lowest loss on held-out tenths, and the weights that it led to."""
    tenths = np.array_split(np.random.default_rng(seed).permutation(problem.records), min(10, problem.records))
    asked = tenths[:-(-ENOUGH // len(tenths[0]))]
    weights, best, best_weights = [None] * len(asked), None, None
    for weight_decay in WEIGHT_DECAYS:
        weights = [problem.solve(weight_decay, start, without=tenth)[0]
                   for tenth, start in zip(asked, weights, strict=True)]
        measured = [problem.measure(fitted, tenth) for fitted, tenth in zip(weights, asked, strict=True)]
        sizes = [len(tenth) for tenth in asked]
        trial = Trial(weight_decay, *np.average(measured, axis=0, weights=sizes).tolist(), sum(sizes))
        tell(trial)
        if best is None or trial.loss < best.loss:
            best, best_weights = trial, weights[0]
        elif trial.loss > WORSE * best.loss:
            break
    return best.weight_decay, best_weights


class _Problem:
    """Rows to fit, one a view. Weights are [c + 1, classes], the bias last, for features of mean 0, scaled."""

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, classes: int, label_smoothing: float,
        weights: np.ndarray | None = None,
    ):
        """`weights` [records] are what each counts in the loss."""
        self.records, self.views, self.channels = features.shape
        self.labels, self.classes = labels, classes
        self.weights = np.ones(self.records, np.float32) if weights is None else weights
        self.mean, self.scale = _spread(features)
        targets = np.full((self.records, classes), label_smoothing / classes, np.float32)
        targets[np.arange(self.records), labels] += 1 - label_smoothing
        with tf.device('CPU'):  # A GPU may multiply with ten bits, and L-BFGS follows every one of them.
            self.rows = [(tf.constant(part) - self.mean) / self.scale for part in _parts(features)]
            self.targets = tf.constant(targets.repeat(self.views, axis=0))

    def solve(
        self, weight_decay: float, start: np.ndarray | None = None, without: Sequence[int] = ()
    ) -> tuple[np.ndarray, float]:
        """(weights, loss) at the minimum over all records but `without`, each with all of its views."""
        from scipy.optimize import minimize  # Here: it takes a third of a second.

        counts = self.weights.copy()
        counts[np.asarray(without, int)] = 0
        shape = (self.channels + 1, self.classes)
        with tf.device('CPU'):
            shares = tf.constant(np.repeat(counts / counts.sum() / self.views, self.views)[:, None])

        def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = tf.constant(flat.reshape(shape), tf.float32)
            with tf.device('CPU'):
                loss, gradient = _loss_and_gradient()(
                    weights, self.rows, self.targets, shares, tf.constant(weight_decay))
            return float(loss), gradient.numpy().ravel().astype(np.float64)

        with _scipy_on_one_thread():
            found = minimize(
                at, np.zeros(shape).ravel() if start is None else start.ravel(), jac=True,
                method='L-BFGS-B', options={'maxiter': PASSES, 'maxfun': 2 * PASSES, 'ftol': TOLERANCE, 'gtol': SLOPE})
        return found.x.reshape(shape).astype(np.float32), float(found.fun)

    def measure(self, weights: np.ndarray, records: np.ndarray) -> tuple[float, float]:
        """(cross-entropy in nats, precision@1) of all views of these records."""
        places = (records[:, None] * self.views + np.arange(self.views)).ravel()
        labels = self.labels[records].repeat(self.views)
        with tf.device('CPU'):
            log_likely = tf.gather(_log_likely(self.rows, weights), places).numpy()
        losses = -log_likely[np.arange(len(labels)), labels]
        loss = np.average(losses, weights=self.weights[records].repeat(self.views))
        return float(loss), float(np.mean(log_likely.argmax(axis=1) == labels))

    def raw(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kernel, bias) that do the same to features as they came."""
        kernel = weights[:-1] / self.scale[:, None]
        return kernel, weights[-1] - self.mean @ kernel


def _parts(features: np.ndarray) -> Iterator[np.ndarray]:
    """float32 [rows, c] of one part of the records after the other."""
    for part in np.array_split(features, min(PARTS, len(features))):
        yield part.reshape(-1, features.shape[2]).astype(np.float32)


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


def _log_likely(rows: list, weights):
    """[rows, classes]: the logarithm of each probability."""
    return tf.nn.log_softmax(tf.concat([part @ weights[:-1] for part in rows], axis=0) + weights[-1])


@functools.cache
def _loss_and_gradient() -> Callable:
    """(weights, rows, targets, shares of the rows in the loss, weight decay) -> (loss, gradient).

    TensorFlow, not NumPy: the threads of NumPy's BLAS wait for each other busily, so that other work on the machine
    slows small products down a hundred times.
    """
    @tf.function(reduce_retracing=True)
    def loss_and_gradient(weights, rows, targets, shares, weight_decay):
        log_likely = _log_likely(rows, weights)
        loss = weight_decay * tf.nn.l2_loss(weights[:-1]) - tf.reduce_sum(shares * targets * log_likely)
        slope = shares * (tf.exp(log_likely) - targets)
        slopes = tf.split(slope, [tf.shape(part)[0] for part in rows])
        by_class = tf.add_n([  # Eight times faster than their transposes.
            tf.matmul(slope, part, transpose_a=True) for slope, part in zip(slopes, rows, strict=True)])
        gradient = tf.transpose(by_class) + weight_decay * weights[:-1]
        return loss, tf.concat([gradient, tf.reduce_sum(slope, axis=0, keepdims=True)], axis=0)

    return loss_and_gradient
