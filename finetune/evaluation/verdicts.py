"""Which of several networks is better, in values and in a sentence."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from finetune.console.terminal import count, printable
from finetune.evaluation import comparison
from finetune.evaluation.comparison import Pair
from finetune.evaluation.inference import Outputs
from finetune.runs.run import Run


class Answered(Protocol):
    """Whatever was asked about the same pictures as others."""

    @property
    def name(self) -> str: ...

    @property
    def right(self) -> np.ndarray: ...  # bool [n]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run with its answers."""

    name: str  # As it is: `printable` where it is said.
    run: Run
    step: int
    checkpoint: str
    outputs: Outputs
    kept: Path | None  # Where the answers were found; None: they were computed.
    best_of: int  # Checkpoints that were measured on these pictures to choose this one.

    @property
    def right(self) -> np.ndarray:  # bool [n]
        return self.outputs.logits.argmax(axis=1) == self.outputs.labels


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What two entries are to one another; `first` has at least as many right."""

    first: Answered
    second: Answered
    pair: Pair
    p: float  # Of the exact test, corrected for all pairs.
    tests: int  # How many pairs those are.

    @property
    def told_apart(self) -> bool:
        return self.p < comparison.SURE

    @property
    def pictures_needed(self) -> int | None:
        return comparison.pictures_needed(self.pair, self.tests)


def against_the_best(entries: Sequence[Answered]) -> list[Verdict]:
    """The one with the most right answers (of equals the first that was named), and it against every other.

    Which one that is, these pictures decided: so the tests are corrected as if every pair had been tried.
    """
    order = sorted(entries, key=lambda entry: -entry.right.sum())  # Stable: of equals the first stays first.
    both = list(itertools.combinations(order, 2))
    pairs = [comparison.pair(first.right, second.right) for first, second in both]
    ps = comparison.holm([pair.p for pair in pairs])
    verdicts = [Verdict(*two, pair, p, len(both)) for two, pair, p in zip(both, pairs, ps, strict=True)]
    return [verdict for verdict in verdicts if verdict.first is order[0]]


def as_json(verdicts: Sequence[Verdict]) -> list[dict]:
    return [{
        'first': printable(verdict.first.name), 'second': printable(verdict.second.name),
        'only_first': verdict.pair.only_first, 'only_second': verdict.pair.only_second,
        'difference': verdict.pair.difference, 'interval_95': list(verdict.pair.interval),
        'mcnemar_p': verdict.pair.p, 'corrected_p': verdict.p, 'told_apart': verdict.told_apart,
        'pictures_needed': verdict.pictures_needed,
    } for verdict in verdicts]


def sentence(verdict: Verdict) -> str:
    """Which is better, by how much and how surely; or that it cannot be told, and what would tell."""
    first, second, pair = printable(verdict.first.name), printable(verdict.second.name), verdict.pair
    if not pair.only_first and not pair.only_second:
        return f'{first} and {second} are right about the very same pictures.'
    low, high = (points(end, pair) for end in pair.interval)
    lead = f'{points(pair.difference, pair)} points ({low} to {high})'
    only = f'{count(pair.only_first, "picture")} only it gets right, {pair.only_second:,} only {second} does'
    test = f'(exact McNemar test: {_p(verdict.p)})'
    if verdict.told_apart:
        return f'{first} is better than {second} by {lead}; {only} {test}.'
    if not pair.difference:
        return (f'{first} and {second} have equally many right: the difference lies between {low} and {high} points; '
                f'{count(pair.only_first, "picture")} only {first} gets right, as many only {second}.')
    odd = ' The interval leaves 0 out, but the test, which decides, is not as sure.' if pair.interval[0] > 0 else ''
    return (f'{first} and {second} cannot be told apart on {count(pair.pictures, "picture")}: {first} is ahead by '
            f'{lead}; {only} {test}.{odd} If the difference is what it seems here, about '
            f'{_rounded_up(verdict.pictures_needed):,} pictures would show it (four times in five).')


def points(difference: float, pair: Pair) -> str:
    """Hundredths of precision@1, no finer than a picture."""
    text = f'{100 * difference:.{1 if pair.pictures < 1000 else 2}f}'
    return text.lstrip('-') if float(text) == 0 else text


def _p(p: float) -> str:
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'


def _rounded_up(number: int) -> int:
    """To two digits: more would be a claim."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit
