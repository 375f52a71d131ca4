"""None of these: how familiar a picture is, beside the pictures of the classes that a network knows.

Its score is the cosine between its pooled features and the nearest class mean; for a network that trained beyond its
head, plus its energy, the logarithm of the sum of exp(logits), weighed so that both vary alike. Its *familiarity* is
the share of real pictures with no higher score: of pictures like those, 5 % have one of 0.05 and less.
"""

import numpy as np

from finetune.evaluation.metrics import by_rows, log_sum_exp

SCORES = 999  # At most, of real pictures, to compare with: familiarity in thousandths.
KEEP = 0.95  # Of real pictures, those that get their label where nobody says otherwise.
LEAST_LENGTH = 1e-12  # Of features: all may be zero.


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean direction of each class that occurs, of length 1: float32 [classes that occur, c]."""
    return _directions(_sums(features, labels))


def familiarity(
    features: np.ndarray, logits: np.ndarray, means: np.ndarray, energy_weight: float, of_real_pictures: np.ndarray
) -> np.ndarray:
    """[n]: the share of real pictures with no higher score, the picture itself counted: above 0, at most 1.

    So a picture that is like the real ones has one of at most 0.05 in no more than 5 % of the cases, however few
    there are to compare with (Vovk et al. 2005).
    """
    scores = (_directions(features) @ means.T).max(axis=1) + _weighed(energy_weight, logits)
    return (1 + np.searchsorted(of_real_pictures, scores.astype(np.float32))) / (len(of_real_pictures) + 1)


def fit(
    features: np.ndarray, labels: np.ndarray, logits: np.ndarray | None = None
) -> tuple[np.ndarray, float, np.ndarray]:
    """(class means, weight of the energy, sorted scores of real pictures) of features [n, c] that logits come from.

    The scores are those of the same pictures, each compared with a mean of its class that it is not part of. Without
    logits the energy does not count.
    """
    cosines = _cosines_without_itself(features, labels)
    weight = 0.0
    if logits is not None and (spread := by_rows(log_sum_exp, logits).std()) > 0:
        weight = float(cosines.std() / spread)
    found = np.sort(cosines + (_weighed(weight, logits) if weight else 0))
    if len(found) > SCORES:
        found = np.quantile(found, np.arange(1, SCORES + 1) / (SCORES + 1))
    return class_means(features, labels), weight, found.astype(np.float32)


def _cosines_without_itself(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """To the nearest class mean, once a picture is taken out of its own; the only one of a class has none."""
    sums, nearest = _sums(features, labels), np.empty(len(labels), np.float32)
    means = _directions(sums)
    for place, label in enumerate(np.unique(labels)):  # One after the other: of all features there is no copy.
        own = np.flatnonzero(labels == label)
        directions = _directions(features[own])
        cosines = directions @ means.T
        others = _directions(sums[place] - directions)
        cosines[:, place] = np.sum(directions * others, axis=1) if len(own) > 1 else -1
        nearest[own] = cosines.max(axis=1)
    return nearest


def _sums(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the directions of each class that occurs."""
    return np.stack([_directions(features[labels == label]).sum(axis=0) for label in np.unique(labels)])


def _directions(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float32)
    lengths = np.sqrt(np.einsum('nc,nc->n', features, features))
    return features / np.maximum(lengths, LEAST_LENGTH)[:, None]


def _weighed(weight: float, logits: np.ndarray) -> np.ndarray:
    return weight * by_rows(log_sum_exp, logits) if weight else np.zeros(len(logits), np.float32)
