"""What a report is made of, drawn: records of noise, a toy run that knows nothing, findings of every kind."""

from pathlib import Path

import numpy as np

from finetune.checking import findings
from finetune.checking.album import GLIMPSE, Album
from finetune.checking.findings import Finding
from finetune.checking.judgement import Checked
from finetune.checking.learning_curve import Curve, Point
from finetune.checking.shortcuts import Shortcut
from finetune.evaluation import metrics
from finetune.evaluation.inference import Outputs
from finetune.records.dataset import Records
from finetune.reporting.contents import Candidate, Contents
from tests import toy_run

CALIBRATION = {
    'after_is_by_halves_in_turn': False, 'unknown': 3, 'keep': 0.95,
    'before': {'nll': 0.5, 'brier': 0.3, 'ece': 0.06, 'ece_if_perfect': 0.03},
    'after': {'nll': 0.4, 'brier': 0.2, 'ece': 0.03, 'ece_if_perfect': 0.03}}
FOUND = {'best_of': 6, 'calibration': CALIBRATION, 'seconds': 2.5, 'engine': 'tensorflow',
         'machine': {'processor': 'a processor', 'cores': 2, 'gpus': []}, 'versions': {'python': '3.11.7'}}
HISTORY = [{'epoch': str(epoch), 'loss': str(1 / epoch), 'validation_loss': str(1.2 / epoch),
            'validation_precision_at_1': str(1 - 0.5 / epoch)} for epoch in range(1, 7)]


def contents(directory: Path, labels=toy_run.LABELS, train: int = 8, validation: int = 6, most: int = 2) -> Contents:
    """So many pictures a class and split; of every kind of finding `most`, if there are so many pictures."""
    classes = len(labels) - 1
    data = toy_run.write_records(
        directory / 'data', labels, train=[0, *[train] * classes], validation=[0, *[validation] * classes])
    run = toy_run.start_run(directory / 'run', labels, per_class=(0, *[train] * classes))
    toy_run.save_checkpoint(run, step=1)
    outputs = answers(data)
    scores = metrics.score(outputs.labels, outputs.logits, data.labels)
    candidates = (
        Candidate('head', 0.81, (0.7, 0.88), f'out of fold over {train * classes} training pictures', 12),
        Candidate('last blocks', scores.precision_at_1, scores.interval, 'on the pictures that chose it', 75, True))
    return Contents(
        'toys', data, checked(data, most), run, run.load(), 'validation', outputs, '', scores, FOUND, candidates,
        'Which is better is not clear.', ('finetune pictures --output=toys',), HISTORY)


def answers(data: Records) -> Outputs:
    """Right in two of three cases, in the order of the records."""
    labels, filenames = _in_order(data, 'validation')
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (len(labels), data.num_classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 3 * (random.random(len(labels)) < 0.67)
    logits[:, 0] = -100
    return Outputs(labels, logits, filenames)


def checked(data: Records, most: int) -> Checked:
    of_splits = [_in_order(data, name) for name in data.splits]
    labels = np.concatenate([labels for labels, _ in of_splits])
    split = np.repeat(np.arange(len(of_splits)), [len(labels) for labels, _ in of_splits])
    seen = Album(tuple(data.splits), data.labels, split, labels, [name for _, names in of_splits for name in names],
                 np.zeros(len(labels), GLIMPSE))
    found = [_finding(kind, number, len(labels), data.labels) for kind in findings.KINDS for number in range(most)]
    curve = Curve(tuple(Point(size, 1 / size, 2) for size in (20, 40, 80)), 80, 0.012, 0.01, (0.008, 0.02), (1, 2))
    shortcut = Shortcut(0.9, 0.2, 0.5, 0.02, ('size',))
    return Checked(seen, findings.ordered(found), (most * 0.85, most * 1.2), 0.8, shortcut, curve)


def _finding(kind: str, number: int, pictures: int, labels) -> Finding:
    places = number % pictures, (7 * number + 3) % pictures
    if kind in ('imbalance', 'small_class'):
        return Finding(kind, 0.7, 'collect more', label=labels[1 + number % (len(labels) - 1)])
    places = () if kind == 'shortcut' else places if kind in findings.PAIRS else places[:1]
    return Finding(kind, 0.8, f'this is of the kind {kind}', places)


def _in_order(data: Records, split: str) -> tuple[np.ndarray, list[bytes]]:
    """(labels, file names) as the shards have them: `toy_run` writes every other record to each of two."""
    labels = [label for label, count in enumerate(data.split(split).per_class) for _ in range(count)]
    places = [*range(0, len(labels), 2), *range(1, len(labels), 2)]
    return (np.array([labels[place] for place in places]),
            [f'{data.labels[labels[place]]}/{place}.jpg'.encode() for place in places])
