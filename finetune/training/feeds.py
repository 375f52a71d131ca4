"""What the training loop runs on: the network that trains and its batches, of pictures or of kept features."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from finetune.console.teams import ALONE, Team
from finetune.features import store
from finetune.models import cuts
from finetune.records import batches
from finetune.records.dataset import Records
from finetune.runs.recipe import Recipe
from finetune.runs.state import build_model
from finetune.training import pretrained

FEATURES_AT_A_TIME = 256  # In validation: a head takes microseconds for each.


@dataclasses.dataclass(frozen=True)
class Feed:
    network: object  # batch['image'] -> logits: the classifier, or the part of it that trains.
    directory: Path  # Of the records.
    records: int  # An epoch.
    training: Callable  # Steps done -> a dataset of full batches without end, from the next step's on.
    validation: object | None  # A finite dataset of all validation records,
    validated_here: object | None  # and of this machine's part of them, if it has one.
    from_features: bool = False
    kept: store.Features | None = None  # Of the training pictures, where the head alone trains.


def of_pictures(
    model, recipe: Recipe, data: Records, threads: int | None, team: Team = ALONE, towers: int = 1
) -> Feed:
    """`towers` are those of this machine, where it is one of several."""
    def training(first_step: int):
        return batches.for_training(
            data, recipe.subset, recipe.image_size, recipe.distorted(), recipe.batch_size, recipe.seed,
            first_step=first_step, threads=threads, machine=(team.index, team.count), towers=towers,
            mixing=recipe.mixing())

    def validation(part: tuple[int, int] | None):
        return batches.for_evaluation(
            data, 'validation', recipe.image_size, recipe.crop_fraction, recipe.batch_size, threads, part)

    records = data.split(recipe.subset).records
    return Feed(model, data.directory, records, training, *_validations(validation, data, team))


def _validations(validation: Callable, data: Records, team: Team) -> tuple:
    """Of all records, and of this machine's part."""
    if 'validation' not in data.splits:
        return None, None
    whole = validation(None)
    if team.count == 1:
        return whole, whole
    first, end = team.part(data.splits['validation'].records)
    return whole, validation((first, end)) if end > first else None


def of_features(
    parts: cuts.Parts, recipe: Recipe, data: Records, directory: Path, engine: str, threads: int | None,
    team: Team = ALONE, towers: int = 1,
) -> Feed:
    """Computes what the frozen part makes of every picture, unless that was done before.

    A head trains on the chief alone, for which the others have only helped to compute.
    """
    train = kept(parts, recipe, data, recipe.subset, recipe.views, directory, engine, threads, team)
    if 'validation' in data.splits:
        validated = kept(parts, recipe, data, 'validation', 1, directory, engine, threads, team)
    training_team = team.of_chief_alone() if parts.head_only else team
    at_a_time = FEATURES_AT_A_TIME if parts.head_only else recipe.batch_size
    return Feed(
        parts.trained,
        data.directory,
        data.split(recipe.subset).records,
        lambda first_step: train.for_training(
            recipe.batch_size, recipe.seed, first_step, (training_team.index, training_team.count), towers),
        *_validations(lambda part: validated.for_evaluation(at_a_time, part), data, training_team),
        from_features=True,
        kept=train if parts.head_only else None,
    )


def kept(
    parts: cuts.Parts, recipe: Recipe, data: Records, split: str, views: int, directory: Path, engine: str,
    threads: int | None, team: Team = ALONE,
) -> store.Features:
    """What the frozen part makes of the pictures of one split, for every run that is frozen so."""
    wanted = store.Wanted(
        data, split, parts, recipe.image_size, recipe.crop_fraction, views, recipe.distorted(), recipe.seed,
        recipe.feature_dtype, engine, mirrored=recipe.mirrored_view and views > 1)
    return store.find_or_compute(wanted, directory, threads, team)


def pooled(recipe: Recipe, data: Records, directory: Path, engine: str, threads: int | None) -> store.Pooled:
    """What the backbone of --pretrained makes of the pictures of every split, one split after the other."""
    model = build_model(recipe, len(data.labels))
    pretrained.restore(model, pretrained.read(recipe), data.labels, fine_tune=True)
    parts = cuts.parts(model)
    rows = np.concatenate([
        kept(parts, recipe, data, split, 1, directory, engine, threads).rows['features'][:, 0]
        for split in data.splits])
    return store.Pooled(rows, model.get_layer('backbone').outputs[-1].shape[-1])
