"""Softmax regression: the best linear head on features that stay as they are, found without a learning rate.

The loss, cross-entropy plus weight decay, is convex: it has one minimum, which L-BFGS finds in a few dozen passes
over the features, whatever the seed. How much weight decay is good is asked of a tenth of the pictures that is held
out (of all tenths in turn, where pictures are few); then the head is fitted to all of them.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from finetune.lazy import tf

ENOUGH = 100  # Held-out pictures to choose by; where a tenth has fewer, several are held out in turn.
WEIGHT_DECAYS = tuple(10.0 ** (-half / 2) for half in range(13))  # 1 to 1e-6, the strongest first.
WORSE = 1.1  # A held-out loss so many times the best one ends the search: weaker decay only makes it worse.
PASSES = 500  # At most; fits of real features need 30 to 150.
TOLERANCE = 1e-5  # Relative change of the loss at which a fit ends; smaller ones change no answer.


@dataclasses.dataclass(frozen=True)
class Trial:
    weight_decay: float
    loss: float  # Cross-entropy of the held-out pictures, in nats.
    precision_at_1: float
    records: int


def fit(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int, *,
    label_smoothing: float = 0.0, tell: Callable[[Trial], None] = lambda trial: None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """(kernel [c, classes], bias [classes], loss) of the best head for features [n, views, c] with labels [n].

    Classes without pictures have zeros. `seed` decides which pictures are held out; `tell` hears of every weight decay
    that was tried.
    """
    occurring = np.unique(labels)
    problem = _Problem.of(features, np.searchsorted(occurring, labels), len(occurring), label_smoothing)
    weight_decay, start = _choose(problem, seed, tell)
    weights, loss = problem.solve(weight_decay, start)
    kernel = np.zeros((features.shape[2], classes), np.float32)
    bias = np.zeros(classes, np.float32)
    kernel[:, occurring], bias[occurring] = problem.raw(weights)
    return kernel, bias, loss


def _choose(problem: '_Problem', seed: int, tell: Callable[[Trial], None]) -> tuple[float, np.ndarray]:
    """The weight decay with the lowest loss on held-out tenths, and the weights that it led to."""
    tenths = np.array_split(np.random.default_rng(seed).permutation(problem.records), min(10, problem.records))
    asked = tenths[:-(-ENOUGH // len(tenths[0]))]
    folds = [(problem.part(np.setdiff1d(range(problem.records), tenth)), problem.part(tenth)) for tenth in asked]
    weights, best, best_weights = [None] * len(folds), None, None
    for weight_decay in WEIGHT_DECAYS:
        weights = [rest.solve(weight_decay, start)[0] for (rest, _), start in zip(folds, weights, strict=True)]
        measured = [tenth.measure(fitted) for (_, tenth), fitted in zip(folds, weights, strict=True)]
        sizes = [len(tenth) for tenth in asked]
        trial = Trial(weight_decay, *np.average(measured, axis=0, weights=sizes).tolist(), sum(sizes))
        tell(trial)
        if best is None or trial.loss < best.loss:
            best, best_weights = trial, weights[0]
        elif trial.loss > WORSE * best.loss:
            break
    return best.weight_decay, best_weights


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Rows to fit. Weights are [c + 1, classes], the bias last, for features of mean 0 and deviation 1."""

    rows: np.ndarray  # float32 [records * views, c], standardised.
    labels: np.ndarray  # [records * views]
    views: int
    classes: int
    label_smoothing: float
    mean: np.ndarray  # [c], of the features as they came.
    deviation: np.ndarray  # [c]

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray, classes: int, label_smoothing: float) -> '_Problem':
        records, views, channels = features.shape
        rows = features.reshape(records * views, channels).astype(np.float32)
        mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        deviation[deviation <= 1e-6 * np.abs(mean)] = 1.0  # A feature that never varies says nothing.
        rows -= mean
        rows /= deviation
        return cls(rows, np.repeat(labels, views), views, classes, label_smoothing, mean, deviation)

    @property
    def records(self) -> int:
        return len(self.rows) // self.views

    def part(self, records: np.ndarray) -> '_Problem':
        """These records alone, each with all of its views."""
        places = (records[:, None] * self.views + np.arange(self.views)).ravel()
        return dataclasses.replace(self, rows=self.rows[places], labels=self.labels[places])

    def solve(self, weight_decay: float, start: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """(weights, loss) at the minimum."""
        from scipy.optimize import minimize  # Here: it takes a third of a second.

        shape = (self.rows.shape[1] + 1, self.classes)
        rows, targets = tf.constant(self.rows), tf.constant(self._targets())

        def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = tf.constant(flat.reshape(shape), tf.float32)
            loss, gradient = _loss_and_gradient()(weights, rows, targets, tf.constant(weight_decay))
            return float(loss), gradient.numpy().ravel().astype(np.float64)

        found = minimize(
            at, np.zeros(shape).ravel() if start is None else start.ravel(), jac=True,
            method='L-BFGS-B', options={'maxiter': PASSES, 'maxfun': 2 * PASSES, 'ftol': TOLERANCE})
        return found.x.reshape(shape).astype(np.float32), float(found.fun)

    def measure(self, weights: np.ndarray) -> tuple[float, float]:
        """(cross-entropy in nats, precision@1) of these rows."""
        log_shares = tf.nn.log_softmax(self.rows @ weights[:-1] + weights[-1]).numpy()
        loss = -log_shares[np.arange(len(self.labels)), self.labels].mean()
        return float(loss), float(np.mean(log_shares.argmax(axis=1) == self.labels))

    def raw(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kernel, bias) that do the same to features as they came."""
        kernel = weights[:-1] / self.deviation[:, None]
        return kernel, weights[-1] - self.mean @ kernel

    def _targets(self) -> np.ndarray:
        """Probabilities to reach: float32 [rows, classes]."""
        targets = np.full((len(self.labels), self.classes), self.label_smoothing / self.classes, np.float32)
        targets[np.arange(len(self.labels)), self.labels] += 1 - self.label_smoothing
        return targets


@functools.cache
def _loss_and_gradient() -> Callable:
    """(weights, rows, targets, weight decay) -> (loss, gradient).

    TensorFlow, not NumPy: the threads of NumPy's BLAS wait for each other busily, so that other work on the machine
    slows small products down a hundred times.
    """
    @tf.function(reduce_retracing=True)
    def loss_and_gradient(weights, rows, targets, weight_decay):
        count = tf.cast(tf.shape(rows)[0], tf.float32)
        log_shares = tf.nn.log_softmax(rows @ weights[:-1] + weights[-1])
        loss = weight_decay * tf.nn.l2_loss(weights[:-1]) - tf.reduce_sum(targets * log_shares) / count
        slope = (tf.exp(log_shares) - targets) / count
        by_class = tf.matmul(slope, rows, transpose_a=True)  # Eight times faster than its transpose.
        gradient = tf.transpose(by_class) + weight_decay * weights[:-1]
        return loss, tf.concat([gradient, tf.reduce_sum(slope, axis=0, keepdims=True)], axis=0)

    return loss_and_gradient
