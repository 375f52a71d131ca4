"""How far probabilities can be believed: what they cost, whether they are met, and the temperature that mends them.

Logits divided by a temperature keep their order, so that no answer changes; above 1 the probabilities come nearer to
each other (Guo et al. 2017). It must be fitted to answers about pictures that did not train.
"""

import math
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.metrics import log_sum_exp, probabilities

BINS = 15  # Of confidence, equally wide: as published figures have it.
DRAWS = 200  # Of what would be right if all confidences were met.
LIMITS = 0.1, 10.0  # A temperature beyond them is no longer a question of calibration.


@dataclass(frozen=True)
class Calibration:
    nll: float  # Mean cross-entropy of the true class, in nats.
    brier: float  # Mean sum over the classes of (probability - truth) squared, between 0 and 2.
    ece: float  # Mean distance between how sure the answers of a bin are and how many of them are right.
    ece_if_perfect: float  # What chance alone shows in as many pictures, answered as surely, of a perfect model.


def temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The one with the highest likelihood, of labels [n] and logits [n, classes].

    The true class counts for one in n + 2 less than certain, as in Platt (1999): of few pictures all may be right,
    which makes nobody infinitely sure.
    """
    from scipy.optimize import minimize_scalar  # Here: it takes a third of a second.

    occurring, places = np.unique(labels, return_inverse=True)
    doubt = 1 / (len(labels) + 2)
    of_label = np.full((len(labels), len(occurring)), doubt / len(occurring))
    of_label[np.arange(len(labels)), places] += 1 - doubt

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / math.exp(log_temperature)
        log_likely = scaled - log_sum_exp(scaled)[:, None]
        return -np.sum(of_label * log_likely[:, occurring]) / len(labels)

    return math.exp(minimize_scalar(loss, bounds=np.log(LIMITS), method='bounded').x)


def halves_in_turn(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """Logits, each half of them divided by the temperature that was fitted to the other half.

    What follows from them is what a temperature does for others, where the only one there is was fitted to these.
    """
    scaled = logits.astype(np.float64)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    for half, other in (halves, halves[::-1]):
        if len(other):
            scaled[half] /= temperature(labels[other], logits[other])
    return scaled


def measure(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> Calibration:
    """Of labels [n] and logits [n, classes]; the seed is that of the perfect model's draws."""
    likely = probabilities(logits)
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0].astype(np.float64)
    truth = np.zeros_like(likely)
    truth[np.arange(len(labels)), labels] = 1
    confidence = likely.max(axis=1)
    random = np.random.default_rng(seed)
    perfect = [_ece(confidence, random.random(len(labels)) < confidence) for _ in range(DRAWS)]
    return Calibration(
        nll=float(np.mean(log_sum_exp(logits.astype(np.float64)) - of_label)),
        brier=float(np.mean(np.sum(np.square(likely - truth), axis=1))),
        ece=_ece(confidence, logits.argmax(axis=1) == labels),
        ece_if_perfect=float(np.mean(perfect)))


def _ece(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Expected calibration error: over the bins, |sum of (right - confidence)| as a share of all pictures."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, is_right - confidence, BINS)).sum() / len(confidence))


@dataclass(frozen=True)
class Bin:
    """Pictures that were answered about as surely."""

    pictures: int
    right: int
    confidence: float  # Mean.


def reliability(labels: np.ndarray, logits: np.ndarray, bins: int = 10) -> list[Bin]:
    """Of bins of confidence, equally wide, those that have pictures, the least sure first."""
    likely = probabilities(logits)
    confidence, is_right = likely.max(axis=1), logits.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return [Bin(int(inside.sum()), int(is_right[inside].sum()), float(confidence[inside].mean()))
            for inside in (places == number for number in range(bins)) if inside.any()]


def answered_first(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Were only the surest answers given: (how many, how many of them right, the least sure of them), from few to all.

    Answers that are equally sure come together, so that the order of the pictures decides nothing.
    """
    confidence = probabilities(logits).max(axis=1)
    surest_first = np.argsort(-confidence, kind='stable')
    confidence = confidence[surest_first]
    right = np.cumsum(logits.argmax(axis=1)[surest_first] == labels[surest_first])
    last_of_equals = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    return last_of_equals + 1, right[last_of_equals], confidence[last_of_equals]
