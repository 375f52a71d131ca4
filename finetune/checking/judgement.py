"""All findings about pictures, made of what is seen of them and of what a network makes of them."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from finetune.checking import (
    album,
    balance,
    duplicates,
    findings,
    label_errors,
    learning_curve,
    neighbours,
    odd,
    shortcuts,
)
from finetune.checking.album import Album
from finetune.checking.findings import Finding
from finetune.console import machine
from finetune.console.files import write_atomically
from finetune.console.lazy import tf
from finetune.evaluation import metrics, results
from finetune.features import regression
from finetune.features.store import Pooled
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs.recipe import Recipe

DIRECTORY = 'check'  # In the records, unless somebody names another.
SHRINKING = ('max_side', 'short_side')  # What a build may have been told that changes sizes.
SCHEMA = 1  # Of findings.json.
WEIGHT_DECAY = 0.01  # Of the heads of the learning curve: within 0.003 of the best one on flowers, whatever the part.


@dataclasses.dataclass(frozen=True)
class Checked:
    """Everything that was found, and what the sentences are made of."""

    album: Album
    found: list[Finding]
    wrong_labels: tuple[float, float]  # Estimates: among those called, in all.
    head_accuracy: float
    shortcut: shortcuts.Shortcut | None
    curve: learning_curve.Curve | None

    @property
    def figures(self) -> dict[str, int]:
        return findings.figures(self.found)

    @property
    def curve_in_words(self) -> str:
        return learning_curve.sentence(self.curve, self.album.class_names)


def look(data: Records, threads: int | None = None, directory: Path | None = None) -> Album:
    """At every picture of the records; what is seen is kept in the directory, so that it is looked at once."""
    try:
        return album.read(data, tuple(data.splits), threads, directory)
    except tf.errors.OpError:
        dataset.check_unchanged(data.directory, data.fingerprint)
        dataset.verify(data)  # If a shard is damaged, this names it.
        raise


def copies(seen: Album, features: Pooled) -> list[Finding]:
    """Leaks, contradictions and duplicates alone."""
    places, cosines = neighbours.by_cosine(neighbours.unit_rows(features.of_last_layer), label_errors.NEIGHBOURS)
    return findings.ordered(duplicates.findings(seen, duplicates.pairs(seen.glimpses, places, cosines)))


def is_shrunk(data: Records) -> bool:
    """Whether large pictures were made smaller, so that their sizes say less."""
    return any(map(data.treatment.get, SHRINKING))


def judge(seen: Album, features: Pooled, image_size: int, shrunk: bool, seed: int) -> Checked:
    """All findings. `features` are those of the album's pictures, in its order.

    A test split is looked at for its copies alone: nothing else that it says may change what is trained.
    """
    rows = neighbours.unit_rows(features.of_last_layer)
    places, cosines = neighbours.by_cosine(rows, label_errors.NEIGHBOURS)
    found = list(duplicates.findings(seen, duplicates.pairs(seen.glimpses, places, cosines)))
    is_member = np.array([name != 'test' for name in seen.splits])[seen.split]
    members = np.flatnonzero(is_member)
    if len(members) < len(rows):
        rows = rows[members]
        places, cosines = neighbours.by_cosine(rows, label_errors.NEIGHBOURS)
    labels = seen.labels[members]
    is_called, wrong_labels, accuracy = np.zeros(len(members), bool), (0.0, 0.0), 0.0
    if len(np.unique(labels)) > 1:
        ridge = label_errors.Ridge(rows)
        margins = label_errors.margins(ridge, places, cosines, labels)
        is_called, accuracy = margins.called, margins.precision
        wrong_labels = label_errors.estimate(ridge, places, cosines, labels, margins, seed)
        found += label_errors.findings(seen, members, margins)
        del ridge
    found += (finding for finding in odd.at_a_glance(seen, image_size) if is_member[finding.places[0]])
    found += odd.outliers(rows, labels, members, ~is_called)
    del rows
    shortcut = shortcuts.find(seen.glimpses[members], labels, accuracy, seed)
    found += shortcuts.finding(shortcut, shrunk)
    found += balance.findings(seen.class_names, *_counts(seen))

    def answers_of(part: np.ndarray) -> np.ndarray:
        logits = regression.out_of_fold(
            features.rows[members[part], None], labels[part], len(seen.class_names), seed, weight_decay=WEIGHT_DECAY)
        return logits.argmax(axis=1)

    curve = learning_curve.draw(answers_of, labels, seed)
    return Checked(seen, findings.ordered(found), wrong_labels, accuracy, shortcut, curve)


def _counts(seen: Album) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each label: to learn from, and to measure by; without a validation split, folds measure by all."""
    def of(split: str) -> np.ndarray:
        return np.bincount(seen.labels[seen.split == seen.splits.index(split)], minlength=len(seen.class_names))

    trained = of('train') if 'train' in seen.splits else np.bincount(seen.labels, minlength=len(seen.class_names))
    return trained, of('validation') if 'validation' in seen.splits else trained


def as_text(checked: Checked) -> str:
    remarks = {}
    among_called, in_all = checked.wrong_labels
    if among_called:
        remarks['label_error'] = (f'about {among_called:.0f} of these really are wrong, and about {in_all:.0f} in all '
                                  f'{len(checked.album.labels):,} pictures')
    return '\n\n'.join([findings.as_text(checked.album, checked.found, remarks), checked.curve_in_words])


def as_json(
    checked: Checked, data: Records, recipe: Recipe, required: Sequence[metrics.Requirement] = ()
) -> dict:
    """findings.json: the counts, the estimates, the curve, every finding, and what they were found with."""
    figures, curve = checked.figures, checked.curve
    return {
        'schema': SCHEMA,
        'pictures': len(checked.album.labels),
        'figures': figures,
        'requirements': {str(requirement): requirement.holds(figures) for requirement in required},
        'wrong_labels_among_called': round(checked.wrong_labels[0], 1),
        'wrong_labels_in_all': round(checked.wrong_labels[1], 1),
        'head_accuracy': checked.head_accuracy,
        'shortcut': dataclasses.asdict(checked.shortcut) if checked.shortcut else None,
        'learning_curve': curve and dataclasses.asdict(curve) | {
            'neediest': [checked.album.class_names[label] for label in curve.neediest],
            'sentence': checked.curve_in_words},
        'findings': [
            {'kind': finding.kind, 'score': round(finding.score, 4), 'suggestion': finding.suggestion,
             'files': [results.json_text(checked.album.name(place)) for place in finding.places],
             **({'class': finding.label} if finding.label else {})}
            for finding in checked.found],
        'time': datetime.now().astimezone().isoformat(timespec='seconds'),
        'data': results.json_text(data.directory), 'data_fingerprint': data.fingerprint,
        'pretrained': results.json_text(recipe.pretrained), 'model': recipe.model, 'image_size': recipe.image_size,
        'machine': machine.describe(), 'versions': machine.versions(),
    }


def write(directory: Path, checked: Checked, found: dict) -> list[Path]:
    """The table and `as_json`, each whole or not at all; returns where they lie."""
    contents = {
        'findings.csv': findings.as_csv(checked.album, checked.found),
        'findings.json': json.dumps(found, indent=1, allow_nan=False) + '\n'}
    for name, content in contents.items():
        write_atomically(directory / name, content.encode())
    return [directory / name for name in contents]
