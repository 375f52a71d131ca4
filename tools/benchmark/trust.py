"""Whether what a run says of its own answers is so: on pictures that it never saw, and on pictures of other things."""

import shutil
import time
from collections.abc import Iterator

import numpy as np

from finetune.evaluation import answers, calibration, unknown
from finetune.evaluation import evaluate as evaluation
from finetune.features import regression
from finetune.models import cuts, engines
from finetune.projects import plans
from finetune.records import batches, dataset
from finetune.records.dataset import Records
from finetune.training import towers
from finetune.training import train as training
from finetune.training.loop import Conduct
from tools.benchmark.networks import BATCH, prepared
from tools.benchmark.place import Place
from tools.benchmark.turns import spread

UNSEEN = 500
STRANGERS = 1000  # Of each kind.
DRAWS = {3170: 5, 1000: 5, 300: 5, 100: 5}  # Training pictures: how many random splits.
BLOCK_SEEDS = (1, 2, 3)
FEW = {5: 10, 10: 10, 20: 10, 600: 1}  # The same, a class.


def trust(place: Place) -> Iterator[dict]:
    """A head on MobileNetV2, on random splits of all pictures."""
    recipe, model, data = prepared(
        place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}', '--freeze_backbone')
    features_of = engines.frozen(cuts.parts(model).frozen, engines.choose(None))

    def looked_at(records: Records, split: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        pictures = batches.for_evaluation(records, split, recipe.image_size, recipe.crop_fraction, BATCH)
        found = [(features_of(batch['image']).numpy().astype(np.float16), batch['label'].numpy())
                 for batch in (pictures.take(-(-most // BATCH)) if most else pictures)]
        return tuple(np.concatenate(part)[:most] for part in zip(*found, strict=True))

    features, labels = map(np.concatenate, zip(*(looked_at(data, split) for split in data.splits), strict=True))
    strangers = {name: looked_at(dataset.open_records(directory), 'validation', STRANGERS)[0]
                 for name, directory in (('CIFAR-10', place.cifar), ('MNIST', place.mnist)) if directory}
    classes = len(data.labels)
    for size, draws in DRAWS.items():
        yield from _by_size(features, labels, classes, strangers, min(size, len(labels) - UNSEEN), draws)
    for count, draws in FEW.items():
        yield _of_few(features, labels, classes, count, draws)


def trust_of_blocks(place: Place) -> Iterator[dict]:
    """The last blocks as `finetune PHOTOS` trains them, on the split of the README."""
    data = dataset.open_records(place.records)
    strangers = {name: dataset.open_records(directory)
                 for name, directory in (('CIFAR-10', place.cifar), ('MNIST', place.mnist)) if directory}
    rows = []
    for seed in BLOCK_SEEDS:
        head, blocks = (place.scratch / f'trust_{name}_{seed}' for name in ('head', 'blocks'))
        typed = {'pretrained': str(place.mobilenet), 'seed': seed}
        planned = plans.head(typed)
        for directory in (head, blocks):
            shutil.rmtree(directory, ignore_errors=True)
        started = time.monotonic()
        conduct = Conduct(feature_dir=place.scratch / 'trust_features')
        strategy = towers.strategy()
        run = training.train(head, data, planned.recipe, strategy, conduct)
        planned, = plans.after_the_head('good', typed, run.recipe, str(head), data.split('train').records)
        run = training.train(blocks, data, planned.recipe, strategy, conduct)
        seconds = time.monotonic() - started
        loaded = run.load()
        done = evaluation.evaluate(run, loaded, data, 'validation', engines.choose(None), strategy)
        found = done.found['calibration']
        row = {'precision@1': done.scores.precision_at_1, 'seconds from records': seconds,
               'temperature': found['temperature'],
               'log loss before': found['before']['nll'], 'log loss after, by halves in turn': found['after']['nll'],
               'ECE beyond a perfect model after': found['after']['ece'] - found['after']['ece_if_perfect']}
        for name, records in strangers.items():
            most = min(STRANGERS, records.split('validation').records)
            strange = answers.answer(
                run, loaded, records, 'validation', engines.choose(None), strategy, BATCH, most=most)
            row[f'{name} let in'] = float(np.mean(strange.extra > 1 - unknown.KEEP))
        rows.append(row)
    goals = {'CIFAR-10 let in': 0.15, 'MNIST let in': 0.2, 'ECE beyond a perfect model after': 0.01}
    for name in rows[0]:
        yield {'what': f'{name}; last blocks of MobileNetV2', 'unit': '', 'n': len(rows),
               'ours': spread(np.array([row[name] for row in rows])), 'goal': goals.get(name, '')}


def _by_size(features, labels, classes: int, strangers: dict, size: int, draws: int) -> Iterator[dict]:
    rows = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        train, unseen = order[UNSEEN:UNSEEN + size], order[:UNSEEN]
        head = regression.fit(features[train, None], labels[train], classes, draw)
        out_of_fold = regression.out_of_fold(
            features[train, None], labels[train], classes, draw, weight_decay=head.weight_decay)
        logits = _logits(head, features[unseen])
        temperature = calibration.temperature(labels[train], out_of_fold)
        fitted = unknown.fit(features[train], labels[train])
        row = {'out of fold': np.mean(out_of_fold.argmax(axis=1) == labels[train]),
               'unseen': np.mean(logits.argmax(axis=1) == labels[unseen]), 'temperature': temperature}
        for when, scaled in (('before', logits), ('after', logits / temperature)):
            found = calibration.measure(labels[unseen], scaled)
            row |= {f'log loss {when}': found.nll,
                    f'ECE beyond a perfect model {when}': found.ece - found.ece_if_perfect}
        familiar = unknown.familiarity(features[unseen], logits, *fitted)
        for keep in (0.95, 0.99):
            row[f'kept of {keep:.0%}'] = np.mean(familiar > 1 - keep)
        for name, strange in strangers.items():
            seen = unknown.familiarity(strange, _logits(head, strange), *fitted)
            row[f'{name} let in'] = np.mean(seen > 0.05)
        rows.append(row)
    of = f'{size} training pictures, {UNSEEN} unseen'
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    yield {'what': f'precision@1: out of fold, against unseen; {of}', 'unit': 'share', 'n': draws,
           'ours': spread(found.pop('out of fold')), 'theirs': spread(found['unseen'])}
    del found['unseen']
    goals = {'CIFAR-10 let in': 0.2, 'MNIST let in': 0.02, 'kept of 95%': [0.935, 0.965], 'kept of 99%': [0.98, 0.998]}
    for name, values in found.items():
        yield {'what': f'{name}; {of}', 'unit': '', 'n': draws, 'ours': spread(values), 'goal': goals.get(name, '')}


def _of_few(features, labels, classes: int, count: int, draws: int) -> dict:
    """Of so many pictures a class; the rest is unseen."""
    right = []
    for draw in range(draws):
        random = np.random.default_rng(draw)
        train = np.concatenate([random.permutation(np.flatnonzero(labels == label))[:count]
                                for label in np.unique(labels)])
        unseen = np.setdiff1d(np.arange(len(labels)), train)
        head = regression.fit(features[train, None], labels[train], classes, draw)
        right.append(np.mean(_logits(head, features[unseen]).argmax(axis=1) == labels[unseen]))
    return {'what': f'precision@1 of a head on {count} pictures a class', 'unit': 'share', 'n': draws,
            'ours': spread(np.array(right))}


def _logits(head: regression.Head, features: np.ndarray) -> np.ndarray:
    logits = features.astype(np.float32) @ head.kernel + head.bias
    logits[:, ~head.kernel.any(axis=0)] = -100  # Classes without pictures.
    return logits
