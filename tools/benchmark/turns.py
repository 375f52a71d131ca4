"""Two sides that take turns, so that a busy machine slows both."""

import time
from collections.abc import Callable

import numpy as np


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> dict:
    """Both sides return how much they did in a second; a ratio above 1 speaks for us."""
    ours(), theirs()
    pairs = np.array([(ours(), theirs()) for _ in range(turns)])
    return {'n': turns, 'ours': spread(pairs[:, 0]), 'theirs': spread(pairs[:, 1]),
            'ratio': spread(pairs[:, 0] / pairs[:, 1])}


def spread(values: np.ndarray) -> dict:
    std = np.std(values, ddof=1) if len(values) > 1 else 0.0  # Of all turns there could be, by those there were.
    return {'mean': round(float(np.mean(values)), 4), 'std': round(float(std), 4)}


def rate(work: Callable[[], int]) -> Callable[[], float]:
    """A function that does the work and returns how much of it was done in a second."""
    def done_in_a_second() -> float:
        started = time.monotonic()
        done = work()
        return done / (time.monotonic() - started)

    return done_in_a_second
