"""Classes that are far smaller than others, or too small for what is said of them to mean anything."""

from collections.abc import Iterator, Sequence

import numpy as np

from finetune.checking.findings import Finding
from finetune.console.terminal import count
from finetune.evaluation.metrics import wilson

IMBALANCED = 5  # Times as many pictures in the largest class.
WIDEST = 0.2  # To either side: a recall that is known less well says hardly more than that the class is there.
LIKELY_RECALL = 0.9


def findings(class_names: Sequence[str], trained: np.ndarray, measured: np.ndarray) -> Iterator[Finding]:
    """`trained` and `measured` count the pictures of each label: those to learn from, those that recall is taken of."""
    occurring = [label for label in range(len(class_names)) if trained[label] or measured[label]]
    largest = max((int(trained[label]) for label in occurring), default=0)
    for label in occurring:
        pictures, asked = int(trained[label]), int(measured[label])
        if pictures * IMBALANCED <= largest:
            yield Finding(
                'imbalance', 1 - pictures / largest,
                f'{count(pictures, "picture")} to learn from where the largest class has {largest:,}: collect more of '
                'it, or train with --class_weights=balanced; else it is answered too rarely', label=class_names[label])
        half = half_width(asked)
        if half > WIDEST:
            yield Finding(
                'small_class', min(1.0, half),
                f'{count(asked, "picture")} to measure by: its recall is known to ± {half:.2f} at best; '
                f'{_enough()} would give ± {WIDEST:g}', label=class_names[label])


def half_width(asked: int) -> float:
    """Of the 95 % interval of a recall of 0.9 that so many pictures measure."""
    if not asked:
        return 1.0
    low, high = wilson(round(LIKELY_RECALL * asked), asked)
    return (high - low) / 2


def _enough() -> int:
    """From so many pictures on, it is never wider again."""
    return max(asked for asked in range(1000) if half_width(asked) > WIDEST) + 1
