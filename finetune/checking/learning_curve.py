"""What more pictures would bring: the error of the head on parts of the data, and a law that goes on from there.

The law is floor + a * pictures^-c. A power law without a floor promises too much: fitted to half of the flowers it says
0.092 of the whole, where 0.108 is measured. What the parts cannot tell of c stands in the interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.console.terminal import some

PARTS = {8: 4, 4: 2, 2: 1, 1: 1}  # One n-th of the pictures, drawn so often.
MOST = 12_000  # Pictures that the curve is measured with; the law is asked about the rest.
FEWEST = 100  # Below which parts are too small to say anything.
EXPONENTS = np.linspace(0.2, 1.0, 17)
DRAWS = 400
INTERVAL = (0.1, 0.9)  # 80 %.


@dataclass(frozen=True)
class Point:
    pictures: int
    error: float
    draws: int


@dataclass(frozen=True)
class Curve:
    points: tuple[Point, ...]
    pictures: int
    now: float  # Error, by the law.
    doubled: float
    interval: tuple[float, float]  # Of `doubled`, 80 %.
    neediest: tuple[int, ...]  # The labels with the highest error, the worst first.


def measure(
    answers_of: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, seed: int
) -> tuple[list[Point], np.ndarray]:
    """The error on parts of the data, the smallest first, and the answers to the largest: -1 for what is not in it.

    `answers_of` gives the label that each picture of a part gets from heads that were fitted to the others of it.
    """
    random, points, answers = np.random.default_rng(seed), [], np.full(len(labels), -1)
    whole = _shares(labels, min(1.0, MOST / len(labels)), random)
    for parts, draws in PARTS.items():
        errors = []
        for _ in range(draws):
            part = whole[_shares(labels[whole], 1 / parts, random)]
            answers[part] = answers_of(part)
            errors.append(np.mean(answers[part] != labels[part]))
        points.append(Point(len(part), float(np.mean(errors)), draws))
    return points, answers


def _shares(labels: np.ndarray, share: float, random) -> np.ndarray:
    """Places of a random share of each class, in order."""
    if share == 1:
        return np.arange(len(labels))
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
    return np.sort(by_class[np.floor(np.arange(len(labels)) * share + 0.5) < np.floor(
        (np.arange(len(labels)) + 1) * share + 0.5)])


def predict(points: Sequence[Point], pictures: int, seed: int) -> tuple[float, float, float]:
    """(error with so many pictures, lower, upper end of its 80 % interval as it would be measured on them)."""
    random = np.random.default_rng(seed)
    sizes = np.array([point.pictures for point in points], float)
    errors = np.array([point.error for point in points])
    tested = sizes * [point.draws for point in points]
    deviation = np.sqrt(np.maximum(errors * (1 - errors), 1 / tested) / tested)
    drawn = errors + deviation * random.normal(size=(DRAWS, len(points)))
    fits = np.stack([_fits(sizes, drawn, deviation, exponent) for exponent in EXPONENTS], axis=1)
    said = []
    for floor, scale, misfit in fits.transpose(0, 2, 1):
        likely = np.exp((misfit.min() - misfit) / 2)
        chosen = random.choice(len(EXPONENTS), p=likely / likely.sum())
        error = min(max(floor[chosen] + scale[chosen] * pictures ** -EXPONENTS[chosen], 0.0), 1.0)
        said.append(error + random.normal() * np.sqrt(max(error * (1 - error), 1 / pictures) / pictures))
    low, high = np.quantile(said, INTERVAL)
    return float(np.clip(np.median(said), 0, 1)), float(max(0.0, low)), float(min(1.0, high))


def _fits(sizes: np.ndarray, errors: np.ndarray, deviation: np.ndarray, exponent: float) -> np.ndarray:
    """(floor, scale, misfit) [draws, 3] of the law with this exponent for errors [draws, points], neither below 0,
    weighted by what each error is worth.
    """
    columns = np.stack([np.ones_like(sizes), sizes ** -exponent], axis=1) / deviation[:, None]
    targets = errors / deviation
    both = np.linalg.lstsq(columns, targets.T, rcond=None)[0].T
    alone = np.maximum(0, targets @ columns / np.square(columns).sum(axis=0))
    options = np.stack([both, alone * (1, 0), alone * (0, 1)], axis=1)  # [draws, 3, 2]
    misfits = np.square(options @ columns.T - targets[:, None]).sum(axis=2)
    misfits[(options < 0).any(axis=2)] = np.inf
    best = misfits.argmin(axis=1)[:, None]
    law = np.take_along_axis(options, best[..., None], axis=1)[:, 0]
    return np.concatenate([law, np.take_along_axis(misfits, best, axis=1)], axis=1)


def draw(
    answers_of: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, seed: int
) -> Curve | None:
    """The curve of these pictures; None where there are too few of them."""
    if len(labels) < FEWEST:
        return None
    points, answers = measure(answers_of, labels, seed)
    now, doubled = (predict(points, times * len(labels), seed) for times in (1, 2))
    asked = answers >= 0
    wrong = {int(label): float(np.mean(answers[asked & (labels == label)] != label))
             for label in np.unique(labels[asked])}
    neediest = [label for label in sorted(wrong, key=wrong.get, reverse=True) if wrong[label] > now[0]][:3]
    return Curve(tuple(points), len(labels), now[0], doubled[0], doubled[1:], tuple(neediest))


def sentence(curve: Curve | None, class_names: Sequence[str]) -> str:
    if curve is None:
        return f'Fewer than {FEWEST} pictures: too few to say what more would bring.'
    low, high = (1 - error for error in curve.interval[::-1])
    text = (f'A head gets {1 - curve.now:.1%} right with these {curve.pictures:,} pictures; with twice as many it '
            f'would be {1 - curve.doubled:.1%} ({low:.1%} to {high:.1%}, 80 % interval).')
    needy = [class_names[label] for label in curve.neediest]
    return f'{text} They are needed most in {some(needy)}.' if needy else text
