"""`finetune check`: records -> findings about the data, before anything but a head is trained."""

import dataclasses
import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

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
from finetune.console import command, files, machine
from finetune.console.errors import UsageError
from finetune.console.files import write_atomically
from finetune.console.lazy import tf
from finetune.console.terminal import count, printable, say
from finetune.evaluation import metrics, results
from finetune.features import regression
from finetune.models import cuts, engines
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.runs.state import build_model
from finetune.training import feeds, pretrained

REQUIRABLE = dict.fromkeys(findings.figures([]), math.inf)
SCHEMA = 1  # Of findings.json.
WEIGHT_DECAY = 0.01  # Of the heads of the learning curve: within 0.003 of the best one on flowers, whatever the part.
SHRINKING = ('max_side', 'short_side')  # What a build may have been told that changes sizes.

FLAGS = command.Flags(
    'finetune check RECORDS [--pretrained=WEIGHTS] [flags]',
    'Looks for what harms a training, and changes nothing: the same picture twice, above all in two splits or two '
    'classes, probable label errors, odd pictures, shortcuts, classes too small; and says what more pictures would '
    'bring.')
FLAGS.group('what')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build`; it may also stand alone')
FLAGS.switch('verify', False, 'compare the sha256 of every shard with dataset.json first')
recipes.add_flags(FLAGS, ('model', 'width', 'image_size', 'crop_fraction', 'feature_layers', 'pretrained'))
FLAGS.group('results')
FLAGS.path('check_dir', None, 'directory of findings.csv and findings.json (default: check in the records)')
FLAGS.path('feature_dir', None, 'where the features are kept that `finetune train --freeze_backbone` uses too '
           '(default: features in the records)')
FLAGS.string('require', '', 'counts to keep to, say "duplicates=0,leaks=0"; else the exit code is 3. There are '
             f'{", ".join(REQUIRABLE)}')
FLAGS.switch('json', False, 'print findings.json, on one line, instead of lines')
FLAGS.group('device')
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, check, argv)


@dataclasses.dataclass(frozen=True)
class Checked:
    """Everything that was found, and what the sentences are made of."""

    album: Album
    found: list[Finding]
    wrong_labels: tuple[float, float]  # Estimates: among those called, in all.
    head_accuracy: float
    shortcut: shortcuts.Shortcut | None
    curve: learning_curve.Curve | None


def check(flags: SimpleNamespace) -> None:
    """Looks at every picture, at the features of every picture, and at both together."""
    required, data = _opened(flags)
    directory = Path(flags.check_dir or Path(data.directory, 'check'))
    files.prepare(directory, 'the findings are written there', '--check_dir')
    recipe = _recipe(flags, data)
    kept = _features(flags, recipe, data)
    try:
        seen = album.read(data, tuple(data.splits), flags.num_preprocess_threads)
        dataset.check_unchanged(data.directory, data.fingerprint)
    except tf.errors.OpError:
        dataset.check_unchanged(data.directory, data.fingerprint)
        dataset.verify(data)  # If a shard is damaged, this names it.
        raise
    say(f'Comparing {count(len(seen.labels), "picture")}')
    checked = judge(seen, kept, recipe.image_size, _is_shrunk(data), recipe.seed)
    _tell(flags, data, recipe, checked, required, directory)
    metrics.check(required, findings.figures(checked.found))


def judge(seen: Album, features: np.ndarray, image_size: int, shrunk: bool, seed: int) -> Checked:
    """All findings. `features` [n, c] are those of the album's pictures, in its order.

    A test split is looked at for its copies alone: nothing else that it says may change what is trained.
    """
    rows = neighbours.unit_rows(features)
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
            features[members[part], None], labels[part], len(seen.class_names), seed, weight_decay=WEIGHT_DECAY)
        return logits.argmax(axis=1)

    curve = learning_curve.draw(answers_of, labels, seed)
    return Checked(seen, findings.ordered(found), wrong_labels, accuracy, shortcut, curve)


def _counts(seen: Album) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of each label: to learn from, and to measure by; without a validation split, folds measure by all."""
    def of(split: str) -> np.ndarray:
        return np.bincount(seen.labels[seen.split == seen.splits.index(split)], minlength=len(seen.class_names))

    trained = of('train') if 'train' in seen.splits else np.bincount(seen.labels, minlength=len(seen.class_names))
    return trained, of('validation') if 'validation' in seen.splits else trained


# Before ---------------------------------------------------------------------------------------------------------------


def _opened(flags: SimpleNamespace) -> tuple[list[metrics.Requirement], Records]:
    given = [*flags.arguments, *([flags.data_dir] if flags.data_dir else [])]
    if len(given) != 1:
        raise UsageError('finetune check takes one directory of records, the --output_directory of `finetune build`'
                         + (f'; {len(given)} were given' if given else ''))
    required = metrics.requirements(flags.require, REQUIRABLE, metrics.OF_COUNTS, 'duplicates=0,leaks=0')
    data = dataset.open_records(command.expanded(given[0]))
    if flags.verify:
        dataset.verify(data)
    return required, data


def _recipe(flags: SimpleNamespace, data: Records) -> recipes.Recipe:
    """That of a head on kept features, so that both share them."""
    typed = {name: getattr(flags, name) for name in recipes.FIELDS if name in flags.given}
    typed = {'pretrained': 'sample'} | typed | {'fine_tune': True, 'freeze_backbone': True}
    first = next(iter(data.splits.values()))
    return recipes.plan(typed, pretrained.network(typed['pretrained']), first.records)


def _features(flags: SimpleNamespace, recipe: recipes.Recipe, data: Records) -> np.ndarray:
    """[n, c] of the pictures of every split, in the order of an album."""
    model = build_model(recipe, len(data.labels))
    pretrained.restore(model, pretrained.read(recipe), data.labels, fine_tune=True)
    parts, engine = cuts.parts(model), engines.choose(flags.engine)
    directory = Path(flags.feature_dir or Path(data.directory, 'features'))
    threads = flags.num_preprocess_threads
    kept = [feeds.kept(parts, recipe, data, split, 1, directory, engine, threads) for split in data.splits]
    return np.concatenate([features.rows['features'][:, 0] for features in kept])


def _is_shrunk(data: Records) -> bool:
    return any(data.treatment.get(name) for name in SHRINKING)


# After ----------------------------------------------------------------------------------------------------------------


def _tell(
    flags: SimpleNamespace, data: Records, recipe: recipes.Recipe, checked: Checked,
    required: Sequence[metrics.Requirement], directory: Path,
) -> None:
    content = as_json(checked, required) | {
        'time': datetime.now().astimezone().isoformat(timespec='seconds'),
        'data': results.json_text(data.directory), 'data_fingerprint': data.fingerprint,
        'pretrained': results.json_text(recipe.pretrained), 'model': recipe.model, 'image_size': recipe.image_size,
        'machine': machine.describe(), 'versions': machine.versions(),
    }
    try:
        write_atomically(directory / 'findings.csv', findings.as_csv(checked.album, checked.found).encode())
        write_atomically(directory / 'findings.json', (json.dumps(content, indent=1, allow_nan=False) + '\n').encode())
    finally:  # They are written although nobody reads them, and shown although the disk is full.
        print(json.dumps(content) if flags.json else as_text(checked), flush=True)
    say(f'Wrote {printable(directory / "findings.csv")}, {printable(directory / "findings.json")}')


def as_text(checked: Checked) -> str:
    remarks = {}
    among_called, in_all = checked.wrong_labels
    if among_called:
        remarks['label_error'] = (f'about {among_called:.0f} of these really are wrong, and about {in_all:.0f} in all '
                                  f'{len(checked.album.labels):,} pictures')
    return '\n\n'.join([findings.as_text(checked.album, checked.found, remarks),
                        learning_curve.sentence(checked.curve, checked.album.class_names)])


def as_json(checked: Checked, required: Sequence[metrics.Requirement]) -> dict:
    """findings.json: the counts, the estimates, the curve, and every finding."""
    figures, curve = findings.figures(checked.found), checked.curve
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
            'sentence': learning_curve.sentence(curve, checked.album.class_names)},
        'findings': [
            {'kind': finding.kind, 'score': round(finding.score, 4), 'suggestion': finding.suggestion,
             'files': [results.json_text(checked.album.name(place)) for place in finding.places],
             **({'class': finding.label} if finding.label else {})}
            for finding in checked.found],
    }


if __name__ == '__main__':
    raise SystemExit(main())
