"""What a report says in sentences: how good the network is, how that was measured, and what to look at first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from finetune.console.terminal import count, listed, printable, some
from finetune.evaluation import calibration
from finetune.evaluation.metrics import Scores
from finetune.reporting.contents import Contents

FEW_MISTAKES = 3  # Of one kind: fewer are no habit.
MOST_TO_LOOK_AT = 4
SURE_ENOUGH = 0.9


@dataclass(frozen=True)
class Advice:
    """Something to look at, and the section of the report that shows it."""

    text: str
    section: str


def percent(share: float) -> str:
    return f'{share:.1%}'


def between(interval: tuple[float, float]) -> str:
    return ' to '.join(map(percent, interval))


def how_good(contents: Contents) -> str:
    """The one number with its interval, and how it was measured."""
    winner, scores = contents.winner, contents.scores
    if winner:
        return _answers_rightly(winner.precision, winner.interval, f'measured {winner.measured_on}')
    if scores:
        return _answers_rightly(scores.precision_at_1, scores.interval, basis(contents))
    return 'No network was measured yet.'


def _answers_rightly(precision: float, interval: tuple[float, float], how: str) -> str:
    return (f'It answers {percent(precision)} of pictures rightly; the true share probably (95 %) lies between '
            f'{" and ".join(map(percent, interval))}. That was {how}.')


def basis(contents: Contents) -> str:
    """How the outputs came about: what their figures can be taken for."""
    if contents.measured_on:
        return f'measured {contents.measured_on}'
    pictures = f'{contents.scores.records:,} {printable(contents.subset)} pictures'
    best_of = contents.found.get('best_of', 1)
    if contents.subset == 'train':
        return f'measured on {pictures}, which it knows: that says nothing of others'
    if best_of > 1:
        return (f'measured on {pictures}, which also chose this epoch as the best of {best_of}: expect a little less '
                'of others')
    if contents.subset == 'test':
        return f'measured on {pictures}, which no training has looked at'
    return f'measured on {pictures}, which did not train it'


def classes(contents: Contents) -> str:
    names = [label for label, pictures in zip(contents.data.labels, _pictures_per_class(contents), strict=True)
             if pictures]
    shown = listed(names) if len(names) <= 6 else some(names, 5)
    return f'{count(sum(_pictures_per_class(contents)), "picture")} of {len(names)} classes: {shown}.'


def _pictures_per_class(contents: Contents) -> list[int]:
    return np.sum([split.per_class for split in contents.data.splits.values()], axis=0).tolist()


def look_first(contents: Contents) -> list[Advice]:
    """What is most worth looking at, the most harmful first."""
    return [*_of_data(contents), *_of_answers(contents)][:MOST_TO_LOOK_AT]


def _of_data(contents: Contents) -> Iterator[Advice]:
    checked = contents.checked
    if not checked:
        return
    of = checked.figures
    if of['leaks']:
        yield Advice(f'{count(of["leaks"], "pair")} of pictures, the same or nearly the same, '
                     f'{"stand" if of["leaks"] > 1 else "stands"} in two splits: figures look better than they are.',
                     'duplicates')
    if of['contradictions']:
        yield Advice(f'{count(of["contradictions"], "picture")} stand{"" if of["contradictions"] > 1 else "s"} in two '
                     'classes: one label of each is wrong.', 'duplicates')
    if of['label_errors']:
        yield Advice(f'{count(of["label_errors"], "picture")} probably {"have" if of["label_errors"] > 1 else "has"} a '
                     'wrong label.', 'label-errors')
    for finding in checked.found:
        if finding.kind == 'shortcut':
            yield Advice('Something that is no content tells the classes apart.', 'data')
    if of['small_classes']:
        yield Advice('One class has too few pictures to be measured.' if of['small_classes'] == 1 else
                     f'{of["small_classes"]:,} classes have too few pictures to be measured.', 'data')


def _of_answers(contents: Contents) -> Iterator[Advice]:
    if not contents.scores:
        return
    for true, answered, pictures in contents.scores.confusions()[:1]:
        if pictures >= FEW_MISTAKES:
            yield Advice(confusion(contents.scores, true, answered, pictures), 'mixed-up')
    occurring = [row for row in contents.scores.classes if row.records]
    worst = min(occurring, key=lambda row: row.recall)
    if worst.recall < contents.scores.precision_at_1:
        yield Advice(f'Of {printable(worst.label)} the fewest are found: {worst.right:,} of '
                     f'{count(worst.records, "picture")}.', 'how-good')


def confusion(scores: Scores, true: int, answered: int, pictures: int) -> str:
    of_class = next(row.records for row in scores.classes if row.number == true)
    return (f'{pictures:,} of {count(of_class, "picture")} of {printable(scores.labels[true])} '
            f'{"was" if pictures == 1 else "were"} taken for {printable(scores.labels[answered])}.')


def first(contents: Contents) -> str:
    """The one thing to look at, for whoever reads no more than a line."""
    return next((advice.text for advice in look_first(contents)), 'Nothing stands out.')


# Confidence -----------------------------------------------------------------------------------------------


def scaled_logits(contents: Contents) -> np.ndarray | None:
    """The logits after the temperature; None where the run has none.

    Where it was fitted to these very pictures, by the temperatures of halves in turn, as in `finetune eval`.
    """
    fitted = contents.loaded.trust if contents.loaded else None
    if fitted is None:
        return None
    labels, logits = contents.outputs.labels, contents.outputs.logits
    if _calibration(contents).get('after_is_by_halves_in_turn'):
        return logits / calibration.halves_in_turn(labels, logits)
    return logits / fitted.temperature


def _calibration(contents: Contents) -> Mapping:
    return contents.found.get('calibration') or {}


def if_only_sure(labels: np.ndarray, logits: np.ndarray) -> str:
    """What a person gains who looks at the rest."""
    answered, right, confidence = calibration.answered_first(labels, logits)
    sure = int(np.sum(confidence >= SURE_ENOUGH))
    if not sure:
        return f'It is {SURE_ENOUGH:.0%} sure of none of the pictures.'
    share, precision = answered[sure - 1] / len(labels), right[sure - 1] / answered[sure - 1]
    return (f'It is at least {SURE_ENOUGH:.0%} sure of {percent(share)} of the pictures, and right about '
            f'{percent(precision)} of those.')


def temperature(contents: Contents) -> list[str]:
    """What the temperature does to the probabilities, and which pictures look like none of the classes."""
    fitted, found = contents.loaded.trust, _calibration(contents)
    lines = [f'Its logits are divided by a temperature of {fitted.temperature:.2f}, fitted to {fitted.pictures:,} '
             f'{fitted.fitted_on}; no answer changes by that, only how sure it says it is.']
    if found:
        before, after = found['before'], found['after']
        lines.append(
            f'The calibration error goes from {before["ece"]:.3f} to {after["ece"]:.3f} (a perfect network shows '
            f'{after["ece_if_perfect"]:.3f} on so few pictures), the log loss from {before["nll"]:.3f} to '
            f'{after["nll"]:.3f}'
            + (', each half of the pictures by the temperature of the other half'
               if found.get('after_is_by_halves_in_turn') else '') + '.')
    if found.get('unknown') is not None:
        lines.append(f'Of these {count(contents.scores.records, "picture")}, {found["unknown"]:,} would be answered '
                     f'“unknown” by predict, which keeps {found["keep"]:.0%} of real pictures unless told otherwise.')
    return lines


# Data -----------------------------------------------------------------------------------------------------


def copies(told: Mapping) -> str:
    """What the build found of pictures whose pixels are the same; '' where it found none."""
    found = told.get('duplicates') or {}
    places = {'in_two_splits': 'in two splits', 'in_two_classes': 'in two classes', 'in_one_class': 'in one class'}
    where = [f'{found[name]:,} {text}' for name, text in places.items() if found.get(name)]
    return f'Exact copies that the build found: {listed(where)}.' if where else ''


def files(told: Mapping) -> str:
    """What became of the files, and how large the pictures are."""
    if 'found' not in told:
        return 'The records do not tell.'
    text = (f'{count(told["found"], "picture")} found: {told["written"]:,} are in the records, '
            f'{sum(told["skipped"].values()):,} were skipped.')
    if not told.get('smallest'):
        return text
    smallest, largest = (f'{width:,} × {height:,}' for height, width in (told['smallest'], told['largest']))
    return f'{text} The smallest has {smallest} pixels, the largest {largest}.'


def shortcut(contents: Contents) -> str:
    """Whether what is no content tells the classes apart."""
    checked = contents.checked
    said = [finding.suggestion for finding in checked.found if finding.kind == 'shortcut']
    if said:
        return f'{said[0][0].upper()}{said[0][1:]}.'
    if not checked.shortcut:
        return 'There are too few pictures to say whether what is no content tells the classes apart.'
    return ('What is no content (size, shape, format, quality, borders) does not tell the classes apart: it gets '
            f'{percent(checked.shortcut.accuracy)} right by itself, and naming the largest class gets '
            f'{percent(checked.shortcut.largest)}.')


def wrong_labels(contents: Contents) -> str:
    """How many there probably are."""
    among_called, in_all = contents.checked.wrong_labels
    if not among_called:
        return 'No picture is called mislabelled.'
    return (f'Of the {contents.checked.figures["label_errors"]:,} pictures that look as if they were of another class, '
            f'about {among_called:.0f} really are mislabelled, and about {in_all:.0f} of all '
            f'{len(contents.checked.album.labels):,}. Nothing was changed: look at them, and move the files that are '
            'wrong.')
