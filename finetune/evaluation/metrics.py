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

from finetune.console import files
from finetune.console.errors import RequirementMissed, UsageError

AT_ONCE = 2**22  # Logits: in double precision they take 32 MB.
NORMAL_95 = 1.959963984540054  # 95 % of a normal distribution lies within so many standard deviations.


def by_rows(asked: Callable, logits: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """`asked(logits, *others)`, an array with a row for every picture, of some pictures after the other.

    A copy of the logits of 100,000 pictures and 1000 classes would take 0.8 GB.
    """
    step, found = max(1, AT_ONCE // logits.shape[1]), []
    for first in range(0, len(logits), step):
        part = slice(first, first + step)
        found.append(asked(logits[part], *(other[part] for other in others)))
        files.let_go(logits)
    return np.concatenate(found)


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
    """What one pass over a split found."""

    labels: tuple[str, ...]
    answers: np.ndarray  # int [m, 3]: (true, answered, records) of every kind of answer that was given.
    right_in_5: int
    loss: float  # Mean cross-entropy of the true class, in nats.

    @property
    def records(self) -> int:
        return int(self.answers[:, 2].sum())

    @property
    def right(self) -> int:
        return int(self._counts[self._is_right].sum())

    @property
    def _counts(self) -> np.ndarray:
        return self.answers[:, 2]

    @property
    def _is_right(self) -> np.ndarray:
        return self.answers[:, 0] == self.answers[:, 1]

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
        background = bool((self.answers[:, :2] == 0).any())
        return len(self.labels) - (not background) <= 5 and self.right_in_5 == self.records

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.records)

    @cached_property
    def classes(self) -> list[ClassScore]:
        """The classes that occur or were answered; a background that never does is left out."""
        true, answered, counts = self.answers.T
        right = np.where(self._is_right, counts, 0)
        columns = [np.bincount(numbers, of, len(self.labels)).astype(int)
                   for numbers, of in ((true, counts), (answered, counts), (true, right))]
        scores = map(ClassScore, range(len(self.labels)), self.labels, *np.stack(columns).tolist())
        return [score for score in scores if score.records or score.answered]

    def confusions(self) -> list[tuple[int, int, int]]:
        """Every kind of mistake that was made as (true, answered, records), the most frequent first."""
        return sorted(map(tuple, self.answers[~self._is_right].tolist()), key=lambda pair: (-pair[2], pair))

    def most_mixed_up(self, most: int) -> list[int]:
        """The classes that occur or were answered, in their order; of very many those with the most mistakes."""
        wrong = {row.number: row.records + row.answered - 2 * row.right for row in self.classes}
        return sorted(sorted(wrong, key=lambda number: (-wrong[number], number))[:most])

    def confusion(self, numbers: Sequence[int]) -> np.ndarray:
        """How many records of these classes, [k] rows, were answered with them, [k] columns."""
        places = np.full(len(self.labels), -1)
        places[numbers] = np.arange(len(numbers))
        true, answered = places[self.answers[:, :2]].T
        inside = (true >= 0) & (answered >= 0)
        counts = np.zeros((len(numbers), len(numbers)), np.int64)
        counts[true[inside], answered[inside]] = self._counts[inside]
        return counts

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
    answered, rank, loss = by_rows(_judged, logits, labels).T
    kinds, counts = np.unique(labels.astype(int) * len(names) + answered.astype(int), return_counts=True)
    answers = np.stack([*divmod(kinds, len(names)), counts], axis=1)
    return Scores(tuple(names), answers, int(np.sum(rank < 5)), float(np.mean(loss)))


def _judged(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n, 3]: the answer, how many classes stand before the true one, and the cross-entropy of that."""
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return np.stack([logits.argmax(axis=1), rank_of_label(labels, logits), log_sum_exp(logits) - of_label], axis=1)


@dataclass(frozen=True)
class Mistake:
    """A picture that got the wrong label, by its place in the pass over the split."""

    index: int
    true: int
    answered: int
    probability: float
    probability_of_true: float


def worst_mistakes(
    labels: np.ndarray, logits: np.ndarray, most: int = 50, temperature: float = 1.0
) -> list[Mistake]:
    """The wrong answers that the network was surest of, the surest first; of equals the earlier record."""
    def answer(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        likely, answered = probabilities(logits / temperature), logits.argmax(axis=1)
        rows = np.arange(len(labels))
        return np.stack([answered, likely[rows, answered], likely[rows, labels]], axis=1)

    answered, sure, of_true = by_rows(answer, logits, labels).T
    wrong = np.flatnonzero(answered != labels)
    surest_first = wrong[np.argsort(-sure[wrong], kind='stable')[:most]]
    return [Mistake(int(i), int(labels[i]), int(answered[i]), float(sure[i]), float(of_true[i])) for i in surest_first]


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
