"""Which of two networks answers better, from who is right about the same pictures. NumPy on counts.

Pictures that both know, or neither does, say nothing of which is better: all that counts is the pictures that only one
of them gets right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finetune.console.lazy import LazyModule
from finetune.evaluation.metrics import NORMAL_95

optimize = LazyModule('scipy.optimize', needs_tensorflow=False)
stats = LazyModule('scipy.stats', needs_tensorflow=False)

SURE = 0.05  # Below this chance of so clear a lead between equals, two are told apart.
NEAR = 1e-9  # No limit lies as near to the difference that was seen.
POWER = 0.8  # So often the pictures that are said to be needed are enough.


@dataclass(frozen=True)
class Pair:
    """Two networks on the same pictures: how many only one of them gets right, and of how many."""

    only_first: int
    only_second: int
    pictures: int

    @property
    def difference(self) -> float:
        """Precision@1 of the first less that of the second."""
        return (self.only_first - self.only_second) / self.pictures

    @cached_property
    def interval(self) -> tuple[float, float]:
        return tango(self.only_first, self.only_second, self.pictures)

    @cached_property
    def p(self) -> float:
        return mcnemar(self.only_first, self.only_second)


def pair(right_of_first: np.ndarray, right_of_second: np.ndarray) -> Pair:
    """Counts the pictures: bool [n] each, whether the answer is right."""
    assert len(right_of_first) == len(right_of_second) > 0
    only_first = np.sum(right_of_first & ~right_of_second)
    only_second = np.sum(right_of_second & ~right_of_first)
    return Pair(int(only_first), int(only_second), len(right_of_first))


def mcnemar(only_first: int, only_second: int) -> float:
    """How probable so clear a lead is, of either, where both are equally good: the exact test after McNemar (1947)."""
    differing = only_first + only_second
    return float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0


def tango(only_first: int, only_second: int, pictures: int) -> tuple[float, float]:
    """The 95 % interval of the difference after Tango (1998): all differences that the score test does not reject.

    It keeps its 95 % with few pictures and near 0 and 1 too, as Wilson's does for one proportion, and leaves 0 out
    wherever the exact test tells the two apart. Source: Statistics in Medicine 17, 891-908; recommended by Fagerland,
    Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875.
    """
    if only_first < only_second:  # So that the lower limit is never -1, from where it is searched.
        low, high = tango(only_second, only_first, pictures)
        return -high, -low
    seen = (only_first - only_second) / pictures

    def beyond(difference: float) -> float:
        """Of the limits it is 0, between them negative: the square of the score less that of the 95 %."""
        away = only_first - only_second - pictures * difference
        return away**2 - NORMAL_95**2 * _variance(difference, only_first, only_second, pictures)

    # Not from what was seen itself: where all pictures agree, the variance is 0 there.
    low = optimize.brentq(beyond, -1.0, seen - NEAR)
    high = optimize.brentq(beyond, seen + NEAR, 1.0) if seen < 1 else 1.0
    return low, high


def _variance(difference: float, only_first: int, only_second: int, pictures: int) -> float:
    """Of the lead in pictures, were this the true difference: the rest is what fits the counts best."""
    of_second = only_second / pictures  # Its most likely value solves 2 x² + linear x + constant = 0.
    linear = (2 - (only_first - only_second) / pictures) * difference - (only_first + only_second) / pictures
    constant = -of_second * difference * (1 - difference)
    share = (math.sqrt(max(linear**2 - 8 * constant, 0)) - linear) / 4
    return pictures * (2 * share + difference * (1 - difference))


def pictures_needed(pair: Pair, tests: int = 1) -> int | None:
    """How many pictures tell the two apart four times in five, if they differ as often, and as much, as they do here.

    As one of so many `tests`. After Connor (1987), Biometrics 43, 207-211, and no fewer than the exact test takes where
    it is always the same one that is right. None where there is no difference.
    """
    if not pair.difference:
        return None
    chance = SURE / tests
    differing = (pair.only_first + pair.only_second) / pair.pictures
    of_equals, of_these = math.sqrt(differing), math.sqrt(differing - pair.difference**2)
    spread = stats.norm.ppf(1 - chance / 2) * of_equals + stats.norm.ppf(POWER) * of_these
    return math.ceil(max((spread / pair.difference) ** 2, math.log2(2 / chance) / differing))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values of a family of tests after Holm (1979): at most one family in twenty then has a false finding."""
    order = np.argsort(ps, kind='stable')
    raised = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(raised, 1)
    return corrected.tolist()
