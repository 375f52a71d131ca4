"""The drawings of a report: what was found, as values for `charts`, with what they show in words."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from finetune.checking.learning_curve import Curve
from finetune.console.terminal import printable
from finetune.evaluation import calibration
from finetune.evaluation.metrics import Scores, wilson
from finetune.reporting import charts
from finetune.reporting.charts import Axis, Series
from finetune.reporting.sentences import between, confusion, percent

MOST_IN_MATRIX = 50  # Classes.
SHARES_ANSWERED = 1, 0.95, 0.9, 0.8, 0.7, 0.5
FEWEST_ANSWERED = 10  # What fewer pictures say of the surest answers is noise.
FEWEST_IN_BIN = 5  # Answers, without which a point of the reliability diagram only distracts.


def confusion_matrix(scores: Scores) -> Markup:
    shown = scores.most_mixed_up(MOST_IN_MATRIX)
    pairs = [confusion(scores, *pair) for pair in scores.confusions()[:10]]
    return charts.matrix(
        scores.confusion(shown), [printable(scores.labels[number]) for number in shown],
        'Confusion matrix: a row for what a picture is, a column for what was answered',
        ' '.join(pairs) or 'No picture was taken for another class.')


def reliability(labels: np.ndarray, logits: np.ndarray, scaled: np.ndarray | None) -> Markup:
    """How often answers of some confidence are right, without and with the temperature."""
    bins = {name: [each for each in calibration.reliability(labels, of) if each.pictures >= FEWEST_IN_BIN]
            for name, of in (('without temperature', logits), ('with it', scaled)) if of is not None}
    last = list(bins)[-1]
    every = [Series('', [(0, 0), (1, 1)], 'faint', dots=False)]
    for name, found in bins.items():
        intervals = [wilson(each.right, each.pictures) for each in found] if name == last else ()
        every.append(Series(name, [(each.confidence, each.right / each.pictures) for each in found],
                            'one' if name == last else 'two', intervals=intervals))
    said = [f'{each.pictures} answers about {each.confidence:.0%} sure: {each.right / each.pictures:.0%} right'
            for each in bins[last]]
    return charts.chart('How often answers are right, by how sure they are',
                        f'{", ".join(said) or "Too few answers to draw"}.',
                        charts.axis_of_shares('how sure it is', (0, 1)), charts.axis_of_shares('right', (0, 1)), every)


def abstention(labels: np.ndarray, logits: np.ndarray) -> Markup:
    """What share is right if only the surest answers are given."""
    answered, right, _ = calibration.answered_first(labels, logits)
    enough = answered >= min(FEWEST_ANSWERED, len(labels))
    shares, precision = answered[enough] / len(labels), right[enough] / answered[enough]
    said = [f'{row[0]} answered: {row[1]} right' for row in abstention_rows(labels, logits)]
    return charts.chart(
        'How many answers are right if only the surest are given', f'{"; ".join(said)}.',
        charts.axis_of_shares('share answered', (0, 1)), charts.axis_of_shares('right', [*precision, 1.0]),
        [Series('', list(zip(shares.tolist(), precision.tolist(), strict=True)), dots=False)])


def abstention_rows(labels: np.ndarray, logits: np.ndarray) -> list[tuple[str, str, str, str]]:
    """(share answered, share of them right, its interval, the least sure of them) at some shares."""
    answered, right, confidence = calibration.answered_first(labels, logits)
    places = dict.fromkeys(int(np.searchsorted(answered, share * len(labels))) for share in SHARES_ANSWERED)
    return [(f'{answered[at] / len(labels):.0%}', percent(right[at] / answered[at]),
             between(wilson(int(right[at]), int(answered[at]))), f'{confidence[at]:.0%}') for at in places]


def learning_curve(curve: Curve) -> Markup:
    """What was measured on parts of the pictures, and what the law says of all and of twice as many."""
    measured = [(point.pictures, 1 - point.error) for point in curve.points]
    sizes = [pictures for pictures, _ in measured if pictures < curve.pictures * 0.99]
    sizes += [curve.pictures, 2 * curve.pictures]
    low, high = 1 - curve.interval[1], 1 - curve.interval[0]
    x = Axis('pictures', min(sizes), 2 * curve.pictures, [(size, f'{size:,}') for size in sizes], logarithmic=True)
    said = [f'{percent(right)} with {pictures:,} pictures' for pictures, right in measured]
    return charts.chart(
        'How many answers are right with more pictures',
        f'Measured: {", ".join(said)}. By the law: {percent(1 - curve.now)} with {curve.pictures:,}, '
        f'{percent(1 - curve.doubled)} with twice as many, {percent(low)} to {percent(high)} at 80 %.',
        x, charts.axis_of_shares('right', [*(right for _, right in measured), low, high]),
        [Series('measured', measured),
         Series('by the law', [(curve.pictures, 1 - curve.now), (2 * curve.pictures, 1 - curve.doubled)], 'two'),
         Series('', [(2 * curve.pictures, 1 - curve.doubled)], 'two', intervals=[(low, high)])])


def training(history: Sequence[dict[str, str]]) -> list[Markup]:
    """Loss and precision over the epochs, where there was more than one measurement."""
    losses = {'of training': _column(history, 'loss'), 'of validation': _column(history, 'validation_loss')}
    right = {'of validation': _column(history, 'validation_precision_at_1')}
    drawings = (
        _over_epochs('Loss over the epochs', 'loss', losses, charts.axis, '{:.3f}'),
        _over_epochs('Validation pictures answered rightly', 'right', right, charts.axis_of_shares, '{:.1%}'))
    return [drawing for drawing in drawings if drawing]


def _column(history: Sequence[dict[str, str]], name: str) -> list[charts.Point]:
    """(epoch, value) of the rows that have one; a table that somebody changed may hold anything."""
    points = []
    for row in history:
        try:
            point = float(row['epoch']), float(row[name])
        except (KeyError, TypeError, ValueError):
            continue
        points += [point] if np.isfinite(point).all() else []
    return points


def _over_epochs(title: str, name: str, columns: dict[str, list[charts.Point]], axis, form: str) -> Markup | None:
    columns = {of: points for of, points in columns.items() if len(points) > 1}
    if not columns:
        return None
    epochs, values = np.concatenate(list(columns.values())).T
    said = [f'{of} from {form.format(points[0][1])} to {form.format(points[-1][1])}' for of, points in columns.items()]
    return charts.chart(
        title, f'{", ".join(said)}, in {epochs.max():g} epochs.', charts.axis('epoch', epochs.tolist(), least_step=1),
        axis(name, values.tolist()),
        [Series(of, points, 'two' if of == 'of training' else 'one') for of, points in columns.items()])
