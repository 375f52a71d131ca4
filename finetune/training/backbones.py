"""Which backbone suits some pictures: each with the best head on it, asked about pictures that it was not fitted to."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetune.console.errors import UsageError
from finetune.console.terminal import say, table
from finetune.evaluation import metrics, results
from finetune.evaluation.verdicts import Verdict, sentence
from finetune.evaluation.verdicts import as_json as verdicts_as_json
from finetune.features import regression
from finetune.models import cuts, zoo
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.runs.state import build_model
from finetune.training import feeds, pretrained

SCHEMA = 1  # Of --json.


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One network with its answers, each out of fold."""

    name: str
    recipe: recipes.Recipe
    channels: int  # That its head reads.
    right: np.ndarray  # bool [n]


def named(models: str) -> dict[str, str]:
    """The weights of each network in 'NAME,NAME=WEIGHTS,…': imagenet where it has none of its own."""
    found = {}
    for each in models.split(','):
        name, _, weights = each.partition('=')
        zoo.find(name)
        if name in found:
            raise UsageError(f'--models names {name} twice; a comparison takes two networks or more')
        found[name] = weights or 'imagenet'
    if len(found) < 2:
        raise UsageError(f'--models={models} names one network: a comparison takes two or more, say '
                         '--models=mobilenet_v2,inception_v3=PATH.h5')
    return found


def head(model: str, weights: str) -> dict:
    """Of a recipe what is decided: a new head on a backbone that stays as it is."""
    return {'model': model, 'pretrained': weights, 'fine_tune': True, 'freeze_backbone': True}


def measured(typed: dict, data: Records, split: str, directory: Path, engine: str, threads: int | None) -> Backbone:
    """Its features are kept in the directory, for whoever trains a head on it next."""
    recipe = recipes.plan(typed, pretrained.network(typed), data.split(split).records)
    say(f'{recipe.model}, weights: {recipe.pretrained}')
    model = build_model(recipe, len(data.labels))
    pretrained.restore(model, pretrained.read(recipe), data.labels, fine_tune=True)
    rows = feeds.kept(cuts.parts(model), recipe, data, split, 1, directory, engine, threads).rows
    logits = regression.out_of_fold(rows['features'], rows['label'], len(data.labels), recipe.seed)
    right = logits.argmax(axis=1) == rows['label']
    return Backbone(recipe.model, recipe, rows['features'].shape[-1], right)


def best_first(backbones: Sequence[Backbone]) -> list[Backbone]:
    return sorted(backbones, key=lambda backbone: -backbone.right.sum())


def as_text(found: Sequence[Backbone], verdicts: Sequence[Verdict]) -> str:
    rows = []
    for each in found:
        right, pictures = int(each.right.sum()), len(each.right)
        low, high = metrics.wilson(right, pictures)
        rows.append((each.name, each.recipe.image_size, each.channels, right, pictures, f'{right / pictures:.4f}',
                     f'{low:.4f} to {high:.4f}'))
    header = ('network', 'size', 'channels', 'right', 'of', 'precision@1', '95 % interval')
    return '\n'.join([f'Heads alone, by {regression.FOLDS}-fold cross-validation:', table(rows, header), '',
                      *map(sentence, verdicts)])


def as_json(data: Records, found: Sequence[Backbone], verdicts: Sequence[Verdict]) -> dict:
    return {
        'schema': SCHEMA,
        'data': results.json_text(data.directory),
        'data_fingerprint': data.fingerprint,
        'folds': regression.FOLDS,
        'backbones': [{
            'model': each.name, 'pretrained': results.json_text(each.recipe.pretrained),
            'image_size': each.recipe.image_size, 'feature_layers': each.recipe.feature_layers,
            'channels': each.channels, 'right': int(each.right.sum()), 'precision@1': float(each.right.mean()),
            'precision@1_interval_95': list(metrics.wilson(int(each.right.sum()), len(each.right))),
        } for each in found],
        'comparisons': verdicts_as_json(verdicts),
    }
