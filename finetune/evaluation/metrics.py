"""How good the answers are: precision@1, recall@5, per class, confusion, the worst mistakes. NumPy on counts.

Classes are ranked by logit, the highest first; of equal logits the lower class number stands first. So no count
depends on how a sort treats ties, and a network that says the same of every class gets no credit for it.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finetune.console.errors import RequirementMissed, UsageError

NORMAL_95 = 1.959963984540054  # 95 % of a normal distribution lies within so many standard deviations.


def ranked(logits: np.ndarray, k: int) -> np.ndarray:
    """The k best classes of every picture, the best first: int [n, k]."""
    return np.argsort(-logits, axis=1, kind='stable')[:, :k]


def rank_of_label(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """How many classes stand before the true one: int [n]; 0 is a right answer."""
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)
    lower_numbers = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > of_label) | ((logits == of_label) & lower_numbers), axis=1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes, without overflow: float64 [n, classes]."""
    return np.exp(logits.astype(np.float64) - log_sum_exp(logits)[:, None])


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """float64 [n], without overflow."""
    highest = logits.max(axis=1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64))


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion after Wilson (1927): honest for few records and near 0 and 1 too."""
    share, z2 = right / total, NORMAL_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class ClassScore:
    """One class: how many records it has, how often it was answered, how often rightly.

    A ratio without a denominator is None: recall of a class without records, precision of one never answered.
    """

    number: int
    label: str
    records: int
    answered: int
    right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        return self.right / self.records if self.records else None

    @property
    def f1(self) -> float | None:
        return 2 * self.right / (self.records + self.answered) if self.records or self.answered else None


@dataclass(frozen=True)
class Scores:
    """What one pass over a split found; `confusion[true, answered]` counts records."""

    labels: tuple[str, ...]
    confusion: np.ndarray
    right_in_5: int
    loss: float  # Mean cross-entropy of the true class, in nats.

    @property
    def records(self) -> int:
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        return int(self.confusion.trace())

    @property
    def precision_at_1(self) -> float:
        return self.right / self.records

    @property
    def recall_at_5(self) -> float:
        return self.right_in_5 / self.records

    @property
    def recall_is_trivial(self) -> bool:
        """With 5 answers or fewer to choose from, the true one is always among the first 5.

        A background that is neither a record nor an answer is switched off and not counted.
        """
        background = bool(self.confusion[0].any() or self.confusion[:, 0].any())
        return len(self.labels) - (not background) <= 5 and self.right_in_5 == self.records

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.records)

    @cached_property
    def classes(self) -> list[ClassScore]:
        """The classes that occur or were answered; a background that never does is left out."""
        columns = self.confusion.sum(axis=1), self.confusion.sum(axis=0), self.confusion.diagonal()
        scores = map(ClassScore, range(len(self.labels)), self.labels, *np.stack(columns).tolist())
        return [score for score in scores if score.records or score.answered]

    def confusions(self) -> list[tuple[int, int, int]]:
        """Every kind of mistake that was made as (true, answered, records), the most frequent first."""
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        pairs = [(*pair, int(wrong[*pair])) for pair in np.argwhere(wrong).tolist()]
        return sorted(pairs, key=lambda pair: (-pair[2], pair))

    def figures(self) -> dict[str, float]:
        """The single numbers, by the names that --require and metrics.json know them by."""
        occurring = [score for score in self.classes if score.records]
        return {
            'precision@1': self.precision_at_1,
            'recall@5': self.recall_at_5,
            'mean_recall': sum(score.recall for score in occurring) / len(occurring),
            'mean_f1': sum(score.f1 for score in occurring) / len(occurring),
            'loss': self.loss,
        }


def score(labels: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> Scores:
    """Counts the answers to n pictures: labels int [n], finite logits [n, classes], the classes' names."""
    assert len(labels) == len(logits) > 0 and logits.shape[1] == len(names)
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    right_in_5 = int(np.sum(rank_of_label(labels, logits) < 5))
    return Scores(tuple(names), confusion, right_in_5, loss=float(np.mean(log_sum_exp(logits) - of_label)))


@dataclass(frozen=True)
class Mistake:
    """A picture that got the wrong label, by its place in the pass over the split."""

    index: int
    true: int
    answered: int
    probability: float
    probability_of_true: float


def worst_mistakes(labels: np.ndarray, logits: np.ndarray, most: int = 50) -> list[Mistake]:
    """The wrong answers that the network was surest of, the surest first; of equals the earlier record."""
    answered = logits.argmax(axis=1)
    wrong = np.flatnonzero(answered != labels)
    likely = probabilities(logits[wrong])
    rows = np.arange(len(wrong))
    surest_first = np.argsort(-likely[rows, answered[wrong]], kind='stable')[:most]
    return [
        Mistake(int(i), int(labels[i]), int(answered[i]), float(p[answered[i]]), float(p[labels[i]]))
        for i, p in zip(wrong[surest_first], likely[surest_first], strict=True)
    ]


COMPARISONS = {'>=': operator.ge, '<=': operator.le, '>': operator.gt, '<': operator.lt}
OF_COUNTS = {**COMPARISONS, '=': operator.eq}  # What is measured is hardly ever equal to anything.
# By the most that each can be.
REQUIRABLE = {'precision@1': 1, 'recall@5': 1, 'mean_recall': 1, 'mean_f1': 1, 'loss': math.inf}


@dataclass(frozen=True)
class Requirement:
    """A figure that must be reached, as --require states it: precision@1>=0.9."""

    name: str
    comparison: str
    bound: float

    def __str__(self) -> str:
        return f'{self.name}{self.comparison}{self.bound:g}'

    def holds(self, figures: Mapping[str, float]) -> bool:
        return OF_COUNTS[self.comparison](figures[self.name], self.bound)


def requirements(
    text: str, most: Mapping[str, float] = REQUIRABLE, comparisons: Mapping[str, Callable] = COMPARISONS,
    example: str = 'precision@1>=0.9',
) -> list[Requirement]:
    """'precision@1>=0.9, loss<0.5' -> two requirements, or a UsageError that states the grammar.

    `most` names the figures there are, and the largest value that each can have.
    """
    return [_requirement(part.strip(), most, comparisons, example) for part in text.split(',')] if text.strip() else []


def _requirement(
    part: str, most: Mapping[str, float], comparisons: Mapping[str, Callable], example: str
) -> Requirement:
    match = re.fullmatch(r'([a-z0-9_@]+)\s*([<>=]+)\s*(\d*\.?\d+)', part)
    if not match or match[1] not in most or match[2] not in comparisons:
        others = ' '.join(comparison for comparison in comparisons if comparison != '>=')
        raise UsageError(
            f'--require: {part!r} is not understood; expected NAME>=NUMBER (or {others}), several joined by '
            f'commas, where NAME is one of {", ".join(most)}: --require="{example}"'
        )
    name, comparison, bound = match[1], match[2], float(match[3])
    if bound > most[name]:
        raise UsageError(f'--require: {part!r} cannot be; {name} lies between 0 and {most[name]}: for 90 % write 0.9')
    return Requirement(name, comparison, bound)


def check(required: Sequence[Requirement], figures: Mapping[str, float]) -> None:
    """Raises RequirementMissed, which names every figure that was not reached and what it is."""
    missed = [f'{requirement}, but it is {_shown(figures[requirement.name])}'
              for requirement in required if not requirement.holds(figures)]
    if missed:
        raise RequirementMissed(f'--require is not met: {"; ".join(missed)}.')


def _shown(figure: float) -> str:
    return str(figure) if isinstance(figure, int) else f'{figure:.4f}'
