"""Whether what is no content, such as size or coding, tells the class: a network would learn that in place of it.

Judged by a small forest out of fold: its trees ask the same question everywhere on a level, so that a tree of eight
levels is eight comparisons a picture, and growing one is counting. On flowers it gets what a random forest gets.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from finetune.checking.findings import Finding

WARN = 0.3  # Share of what the head knows beyond the largest class that the properties know too. Flowers: 0.1.
CLEAR = 4.0  # Times the deviation of chance, above the largest class.
LEAST_OF_HEAD = 0.05  # Taken to be known by a head that knows nothing.
FOLDS, TREES, LEVELS, TRIES = 5, 40, 8, 12
PRIOR = 1.0  # Pictures, spread as in all, that every leaf has besides its own.
ENOUGH = 20  # Pictures in all, below which nothing is said.


@dataclass(frozen=True)
class Shortcut:
    accuracy: float  # Of the properties alone, out of fold.
    largest: float  # The share of the largest class: what knowing nothing gives.
    explained: float  # (accuracy - largest) / (that of the head - largest)
    chance: float  # The deviation that an accuracy on so many pictures has by chance.
    telling: tuple[str, ...] = ()  # The properties that do it alone, the best first.

    @property
    def is_clear(self) -> bool:
        return self.explained > WARN and self.accuracy - self.largest > CLEAR * self.chance


def properties(glimpses: np.ndarray) -> dict[str, np.ndarray]:
    """What is known of the files and is no content: name -> float [n, columns]."""
    height, width = (glimpses[name].astype(float) for name in ('height', 'width'))
    found = {
        'size': np.stack([height, width, height * width], axis=1),
        'shape': (width / height)[:, None],
        'bytes': np.stack([glimpses['bytes'], glimpses['bytes'] / (height * width)], axis=1),
        'format and quality': np.stack([glimpses['is_png'], glimpses['jpeg_quality']], axis=1),
        'borders': glimpses['borders'],
    }
    return {name: values.astype(float) for name, values in found.items()}


def find(glimpses: np.ndarray, labels: np.ndarray, head_accuracy: float, seed: int) -> Shortcut | None:
    """What the properties know; None where there are too few pictures or classes to say."""
    occurring, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(labels) < ENOUGH or len(occurring) < 2:
        return None
    known, largest = properties(glimpses), float(counts.max() / len(own))
    accuracy = forest_accuracy(np.concatenate(list(known.values()), axis=1), own, seed)
    explained = (accuracy - largest) / max(head_accuracy - largest, LEAST_OF_HEAD)
    found = Shortcut(accuracy, largest, explained, float(np.sqrt(largest * (1 - largest) / len(own))))
    if not found.is_clear:
        return found
    alone = {name: forest_accuracy(values, own, seed) for name, values in known.items()}
    telling = [name for name in sorted(alone, key=alone.get, reverse=True)
               if alone[name] - largest > (accuracy - largest) / 3]
    return dataclasses.replace(found, telling=tuple(telling))


def finding(found: Shortcut | None, shrunk: bool) -> list[Finding]:
    if not found or not found.is_clear:
        return []
    unseen = 'camera, date' + (', and the size and quality before the build shrank pictures,' if shrunk else '')
    return [Finding(
        'shortcut', min(1.0, found.explained),
        f'{", ".join(found.telling) or "properties of the files"} alone tell the class of {found.accuracy:.0%} of the '
        f'pictures (the largest class is {found.largest:.0%}): save all pictures alike, or collect every class in the '
        f'same way; {unseen} are not in records and were not looked at')]


def forest_accuracy(columns: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Share of the pictures that are answered rightly by trees that were grown without them."""
    random = np.random.default_rng(seed)
    fold = np.empty(len(labels), int)
    shuffled = random.permutation(len(labels))
    fold[shuffled[np.argsort(labels[shuffled], kind='stable')]] = np.arange(len(labels)) % FOLDS
    classes, right = labels.max() + 1, 0
    for number in range(FOLDS):
        held_out = fold == number
        likely = np.zeros((held_out.sum(), classes))
        for _ in range(TREES):
            likely += _tree(columns[~held_out], labels[~held_out], columns[held_out], classes, random)
        right += int(np.sum(likely.argmax(axis=1) == labels[held_out]))
    return right / len(labels)


def _tree(grown_on: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int, random) -> np.ndarray:
    """[asked, classes]: probabilities by a tree that takes, level by level, the best of some questions drawn."""
    sample = random.integers(len(labels), size=len(labels))
    grown_on, labels = grown_on[sample], labels[sample]
    leaf, asked_leaf = np.zeros(len(labels), int), np.zeros(len(asked), int)
    for level in range(LEVELS):
        tries = [(column, grown_on[random.integers(len(labels)), column])
                 for column in random.integers(grown_on.shape[1], size=TRIES)]
        purity = [_purity(2 * leaf + (grown_on[:, column] > bound), labels, 2 << level, classes)
                  for column, bound in tries]
        column, bound = tries[int(np.argmax(purity))]
        leaf = 2 * leaf + (grown_on[:, column] > bound)
        asked_leaf = 2 * asked_leaf + (asked[:, column] > bound)
    counts = np.bincount(leaf * classes + labels, minlength=classes << LEVELS).reshape(-1, classes)
    counts = counts + PRIOR * np.bincount(labels, minlength=classes) / len(labels)
    return (counts / counts.sum(axis=1, keepdims=True))[asked_leaf]


def _purity(leaf: np.ndarray, labels: np.ndarray, leaves: int, classes: int) -> float:
    """The mean, over pictures, of the share of their own class in their leaf."""
    counts = np.bincount(leaf * classes + labels, minlength=leaves * classes).reshape(leaves, classes)
    return float((np.square(counts).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)).sum())
