"""Probable label errors: pictures that a ridge regression without them and their neighbours both give to another class.

On 3170 flowers with labels flipped at random or between the two most confused classes, the sum of the two margins ranks
the flipped ones better than either, and than the answers of a softmax regression out of fold (Northcutt et al. 2021).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from finetune.checking.album import Album
from finetune.checking.findings import Finding
from finetune.console.terminal import printable

RIDGE = 1.0  # Times the mean eigenvalue: the leave-one-out error of flowers is flat from 0.3 to 3.
NEIGHBOURS = 20
BLOCK = 4096  # Rows at a time, where a product would copy all of them.
SOFTNESS = 0.05  # Of the weight of a neighbour, in cosines: one that is so much less alike counts 1/e.
# Half the ridge margin, between -2 and 2, and the neighbours' margin, between -1 and 1, together: of the flowers with
# 5 % of the labels flipped this calls 95, and 0.96 of them were; of the flowers as they are it calls 6 of 3170.
CALLED = -1.42
RIGHTLY_CALLED = 0.85  # Of the called: what was measured with 5 % of the labels flipped.
TRIED = 0.05  # Of the labels, flipped here to see how many of such errors are found.


@dataclass(frozen=True)
class Margins:
    """By how much the own class is ahead of the best other; far below 0, the label is probably wrong. float [n]."""

    ridge: np.ndarray
    neighbours: np.ndarray
    better: np.ndarray  # int [n]: the label of the best other class.
    precision: float  # Of the ridge regression, each picture answered by one that was solved without it.

    @property
    def suspicion(self) -> np.ndarray:
        """To rank by, the most suspicious highest."""
        return -self.ridge / (self.ridge.std() + 1e-9) - self.neighbours / (self.neighbours.std() + 1e-9)

    @property
    def called(self) -> np.ndarray:
        """Where both agree, and strongly enough together."""
        return (self.ridge < 0) & (self.neighbours < 0) & (self.ridge / 2 + self.neighbours <= CALLED)


class Ridge:
    """The regression's factors, which no label changes: another set of labels costs two products."""

    def __init__(self, rows: np.ndarray):
        """`rows` float32 [n, c] of length 1."""
        self.rows, self.mean = rows, rows.mean(axis=0)
        blocks = [slice(first, first + BLOCK) for first in range(0, len(rows), BLOCK)]
        squares = sum((rows[block] - self.mean).T @ (rows[block] - self.mean) for block in blocks)
        squares[np.diag_indices_from(squares)] += RIDGE * max(np.trace(squares) / len(squares), 1e-6)
        self.factor = cholesky(squares, lower=True)
        self.leverage = np.concatenate([self._leverage(rows[block] - self.mean) for block in blocks]) + 1 / len(rows)

    def _leverage(self, centred: np.ndarray) -> np.ndarray:
        return np.square(solve_triangular(self.factor, centred.T, lower=True)).sum(axis=0)

    def without_each(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """[n, classes]: what a regression without the picture says of it; 1 for its class, -1 for others."""
        targets = np.where(np.arange(classes) == labels[:, None], 1, -1).astype(np.float32)
        mean = targets.mean(axis=0)
        weights = cho_solve((self.factor, True), self.rows.T @ (targets - mean))
        fitted = self.rows @ weights + (mean - self.mean @ weights)
        leverage = np.minimum(self.leverage, 1 - 1e-4)[:, None]
        return (fitted - leverage * targets) / (1 - leverage)


def margins(ridge: Ridge, places: np.ndarray, cosines: np.ndarray, labels: np.ndarray) -> Margins:
    """`places` and `cosines` [n, k] are the nearest by features."""
    occurring, own = np.unique(labels, return_inverse=True)
    said = ridge.without_each(own, len(occurring))
    votes = _votes(places[:, :NEIGHBOURS], cosines[:, :NEIGHBOURS], own, len(occurring))
    ridge_margin, neighbours_margin = _margin(said, own), _margin(votes, own)
    together = said / (ridge_margin.std() + 1e-9) + votes / (neighbours_margin.std() + 1e-9)
    together[np.arange(len(own)), own] = -np.inf
    return Margins(ridge_margin, neighbours_margin, occurring[together.argmax(axis=1)],
                   float(np.mean(said.argmax(axis=1) == own)))


def _votes(places: np.ndarray, cosines: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """[n, classes]: the shares of the neighbours' classes, the most alike counting most."""
    weights = np.where(places >= 0, np.exp((cosines - cosines[:, :1]) / SOFTNESS), 0)
    votes = np.zeros((len(labels), classes), np.float32)
    np.add.at(votes, (np.arange(len(labels))[:, None], labels[places]), weights)
    return votes / np.maximum(votes.sum(axis=1, keepdims=True), 1e-9)


def _margin(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows, others = np.arange(len(labels)), scores.copy()
    others[rows, labels] = -np.inf
    return scores[rows, labels] - others.max(axis=1)


def estimate(
    ridge: Ridge, places: np.ndarray, cosines: np.ndarray, labels: np.ndarray, found: Margins, seed: int
) -> tuple[float, float]:
    """(wrong labels among those called, wrong labels in all): how many there probably are.

    The second from the share of labels, flipped here on purpose, that is called: errors that are hard to see are rarer
    among them than among those that people make, so it is rather too low.
    """
    random = np.random.default_rng(seed)
    trusted, occurring = np.flatnonzero(~found.called), np.unique(labels)
    flipped = random.choice(trusted, max(1, round(TRIED * len(trusted))), replace=False)
    tried = labels.copy()
    steps = random.integers(1, len(occurring), len(flipped))
    tried[flipped] = occurring[(np.searchsorted(occurring, labels[flipped]) + steps) % len(occurring)]
    share_called = float(margins(ridge, places, cosines, tried).called[flipped].mean())
    among_called = RIGHTLY_CALLED * int(found.called.sum())
    return among_called, among_called / max(share_called, 0.1)


def findings(album: Album, members: np.ndarray, found: Margins) -> Iterator[Finding]:
    """Those that are called. `members` are the places in the album that the margins are of."""
    for row in np.flatnonzero(found.called).tolist():
        numbers = album.labels[members[row]], found.better[row]
        label, better = (printable(album.class_names[number]) for number in numbers)
        sure = min(1.0, -(found.ridge[row] / 2 + found.neighbours[row]) / 2)
        yield Finding('label_error', float(sure), f'looks like {better}, not {label}: look at it',
                      (int(members[row]),))
