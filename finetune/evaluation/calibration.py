"""How far probabilities can be believed: what they cost, whether they are met, and the temperature that mends them.

Logits divided by a temperature keep their order, so that no answer changes; above 1 the probabilities come nearer to
each other (Guo et al. 2017). It must be fitted to answers about pictures that did not train.
"""

import math
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.metrics import by_rows, log_sum_exp, probabilities

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

    occurring, doubt = np.unique(labels), 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        def of_each(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
            scaled = logits.astype(np.float64) / math.exp(log_temperature)
            log_likely = scaled - log_sum_exp(scaled)[:, None]
            of_label = np.take_along_axis(log_likely, labels[:, None], axis=1)[:, 0]
            return -(1 - doubt) * of_label - doubt * log_likely[:, occurring].mean(axis=1)

        return by_rows(of_each, logits, labels).mean()

    return math.exp(minimize_scalar(loss, bounds=np.log(LIMITS), method='bounded').x)


def halves_in_turn(labels: np.ndarray, logits: np.ndarray, seed: int = 0) -> np.ndarray:
    """For each picture, float64 [n, 1], the temperature that was fitted to the half of them that it is not in.

    What follows from them is what a temperature does for others, where the only one there is was fitted to these.
    """
    found = np.ones((len(labels), 1))
    halves = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    for half, other in (halves, halves[::-1]):
        if len(other):
            found[half] = temperature(labels[other], logits[other])
    return found


def measure(
    labels: np.ndarray, logits: np.ndarray, temperatures: float | np.ndarray = 1.0, seed: int = 0
) -> Calibration:
    """Of labels [n] and logits [n, classes], divided by one temperature or [n, 1] of them; the seed is that of the
    perfect model's draws.
    """
    temperatures = np.broadcast_to(temperatures, (len(labels), 1))
    nll, brier, confidence, is_right = by_rows(_of_each, logits, labels, temperatures).T
    random = np.random.default_rng(seed)
    perfect = [_ece(confidence, random.random(len(labels)) < confidence) for _ in range(DRAWS)]
    return Calibration(
        nll=float(nll.mean()), brier=float(brier.mean()), ece=_ece(confidence, is_right.astype(bool)),
        ece_if_perfect=float(np.mean(perfect)))


def _of_each(logits: np.ndarray, labels: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """[n, 4]: the cross-entropy, what the answer adds to the Brier score, how sure it is, and whether it is right."""
    scaled = logits / temperatures
    likely = probabilities(scaled)
    truth = np.zeros_like(likely)
    truth[np.arange(len(labels)), labels] = 1
    of_label = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
    return np.stack([log_sum_exp(scaled) - of_label, np.sum(np.square(likely - truth), axis=1), likely.max(axis=1),
                     logits.argmax(axis=1) == labels], axis=1)


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
    confidence, is_right = by_rows(_sure_and_right, logits, labels).T
    is_right = is_right.astype(bool)
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return [Bin(int(inside.sum()), int(is_right[inside].sum()), float(confidence[inside].mean()))
            for inside in (places == number for number in range(bins)) if inside.any()]


def answered_first(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Were only the surest answers given: (how many, how many of them right, the least sure of them), from few to all.

    Answers that are equally sure come together, so that the order of the pictures decides nothing.
    """
    confidence, is_right = by_rows(_sure_and_right, logits, labels).T
    surest_first = np.argsort(-confidence, kind='stable')
    confidence = confidence[surest_first]
    right = np.cumsum(is_right[surest_first].astype(int))
    last_of_equals = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    return last_of_equals + 1, right[last_of_equals], confidence[last_of_equals]


def _sure_and_right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n, 2]: how sure each answer is, and whether it is right."""
    return np.stack([probabilities(logits).max(axis=1), logits.argmax(axis=1) == labels], axis=1)
