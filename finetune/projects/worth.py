"""What the runs of a project are worth: which is best, and a number that no choice has made look better than it is."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from finetune.checking import duplicates
from finetune.checking.judgement import Checked
from finetune.console import files
from finetune.console.terminal import count, printable, say, show
from finetune.evaluation import answers, metrics, verdicts
from finetune.evaluation import evaluate as evaluation
from finetune.features import regression
from finetune.features.store import Pooled
from finetune.models import engines
from finetune.records.dataset import Records
from finetune.runs import trust
from finetune.runs.run import Loaded, Run

FEW_VALIDATION_PICTURES = 200  # Below this, folds over all pictures say more of the head.
FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Number:
    """Precision@1 that no choice has made look better than it is."""

    right: int
    pictures: int
    measured_on: str  # As after "measured".

    @property
    def precision(self) -> float:
        return self.right / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        return metrics.wilson(self.right, self.pictures)


@dataclasses.dataclass(frozen=True)
class Outcome:
    entries: list[verdicts.Entry]
    winner: verdicts.Entry
    of_each: list[Number]  # Of every entry; of the winner one that the choice has not made better.
    comparison: str
    loaded: Loaded
    subset: str  # That the winner was evaluated on.
    done: evaluation.Evaluation


def in_words(number: Number) -> str:
    low, high = number.interval
    return (f'right about {number.precision:.1%} of pictures that it has not seen (95 % interval {low:.1%} to '
            f'{high:.1%}), measured {number.measured_on}')


def of_head(run: Run, data: Records, checked: Checked, features: Pooled) -> Number:
    """Out of fold: over the training pictures, or over all but those of a test where few others could validate.

    Pictures that are nearly the same stay in one fold, or each would give the other away.
    """
    seen = checked.album
    fitted = trust.read(run.directory, run.steps()[-1])
    validating = data.splits['validation'].records if 'validation' in data.splits else 0
    if fitted and validating >= FEW_VALIDATION_PICTURES:
        return Number(fitted.right, fitted.pictures, f'out of fold over {count(fitted.pictures, "training picture")}')
    members = np.flatnonzero(np.array([name != 'test' for name in seen.splits])[seen.split])
    labels = seen.labels[members]
    groups = duplicates.groups(checked.found, len(seen.labels))[members]
    logits = regression.out_of_fold(
        features.rows[members, None], labels, len(data.labels), run.recipe.seed, folds=FOLDS, groups=groups,
        class_weights=run.recipe.weights_of_classes(run.records['per_class']))
    right = int(np.sum(logits.argmax(axis=1) == labels))
    return Number(right, len(labels), f'by {FOLDS}-fold cross-validation over all {count(len(labels), "picture")}')


def evaluated(
    runs: Sequence[Run], of_head: Number, data: Records, engine: str | None, threads: int | None, strategy
) -> Outcome:
    """Every run on the validation pictures, which of them is better, and the winner on test pictures if there are."""
    subset = next(name for name in ('validation', 'train') if name in data.splits)
    entries, loads, evaluations = [], [], []
    for run in runs:
        loaded, done = _evaluate(run, data, subset, engine, threads, strategy)
        loads.append(loaded)
        evaluations.append(done)
        entries.append(verdicts.Entry(run.directory.name, run, loaded.step, loaded.path, done.outputs, None, 1))
    best = max(range(len(runs)), key=lambda place: (entries[place].right.sum(), -place))
    number = of_head if best == 0 else chosen_in_turn(entries)
    comparison = '\n'.join(map(verdicts.sentence, verdicts.against_the_best(entries))) if len(entries) > 1 else ''
    if comparison:
        show(comparison)
    loaded, done = loads[best], evaluations[best]
    if 'test' in data.splits:
        subset = 'test'
        loaded, done = _evaluate(runs[best], data, subset, engine, threads, strategy)
        number = Number(done.scores.right, done.scores.records,
                        f'on {count(done.scores.records, "test picture")} that nothing was chosen by')
    of_each = [of_head, *map(_on_validation, entries[1:])]
    of_each[best] = number
    return Outcome(entries, entries[best], of_each, comparison, loaded, subset, done)


def _evaluate(
    run: Run, data: Records, subset: str, engine: str | None, threads: int | None, strategy
) -> tuple[Loaded, evaluation.Evaluation]:
    loaded = answers.load(run, 'best', True, strategy)
    engine = engines.choose(engine, run.recipe.mixed_precision, strategy.num_replicas_in_sync)
    done = evaluation.evaluate(run, loaded, data, subset, engine, strategy, threads=threads)
    directory = run.directory / 'eval' / subset
    files.prepare(directory, 'the results are written there', '--output')
    evaluation.write(directory, done, data)
    scores = done.scores
    say(f'{printable(run.directory.name)}: precision @ 1 = {scores.precision_at_1:.4f} [{scores.records} examples] '
        f'({subset})')
    return loaded, done


def _on_validation(entry: verdicts.Entry) -> Number:
    return Number(int(entry.right.sum()), len(entry.right), f'on {count(len(entry.right), "validation picture")}')


def chosen_in_turn(entries: Sequence[verdicts.Entry]) -> Number:
    """Of the best of several: one half of the pictures says which that is, and the other how good it is."""
    right = np.stack([entry.right for entry in entries])
    halves = [right[:, 0::2], right[:, 1::2]]
    found = sum(int(measures[choosing.sum(axis=1).argmax()].sum()) for choosing, measures in (halves, halves[::-1]))
    pictures = right.shape[1]
    return Number(found, pictures, f'on {count(pictures, "validation picture")}, one half of which chose the run that '
                                   'the other half measured')
