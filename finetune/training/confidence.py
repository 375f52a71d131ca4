"""Fits what makes a run's answers trustworthy, at the end of its training."""

import itertools

import numpy as np

from finetune.console.terminal import count, say
from finetune.evaluation import calibration, inference, unknown
from finetune.features import regression
from finetune.models import cuts, engines
from finetune.runs import trust
from finetune.runs.run import Run
from finetune.training.feeds import Feed


def of_solved_head(run: Run, features: np.ndarray, labels: np.ndarray, weight_decay: float) -> None:
    """By answers out of fold to the training pictures, of features [n, views, c], before the head is saved.

    So a head that is saved has it. Of so many pictures that every fold takes minutes, those of one fold are asked.
    """
    folds = regression.each_fold(
        features, labels, len(run.labels), run.recipe.seed, weight_decay=weight_decay,
        label_smoothing=run.recipe.label_smoothing,
        class_weights=run.recipe.weights_of_classes(run.records['per_class']))
    asked = itertools.islice(folds, regression.folds_asked(features, labels))
    places, logits = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    right = np.mean(logits.argmax(axis=1) == labels[places])
    say(f'{right:.4f} of {count(len(places), "training picture")} are answered rightly out of fold, that is, by a head '
        'that was fitted without them.')
    _write(run, 1, trust.OUT_OF_FOLD, labels[places], logits, *unknown.fit(features[:, 0], labels))


def of_steps(run: Run, feed: Feed, strategy) -> None:
    """By the answers of the best checkpoint to the validation pictures, unless it was done before.

    Of the last one where no best one is kept.
    """
    step = run.steps()[-1] if run.best_step is None else run.best_step
    if not feed.validation or trust.read(run.directory, step):
        return
    loaded = run.load('best', strategy=strategy)
    network = cuts.parts(loaded.model).trained if feed.from_features else loaded.model
    with strategy.scope():
        answers_of = engines.function(cuts.with_features(network))
    found = inference.outputs(answers_of, feed.validation, strategy)
    means, *scores = unknown.fit(found.extra, found.labels, found.logits)
    trained = {label for label, count in enumerate(run.records['per_class']) if count}
    if trained - set(found.labels.tolist()):  # Their pictures would be called unknown.
        say('Some class has no validation picture, so that this network will never say `unknown`.')
        means = means[:0]
    _write(run, loaded.step, trust.VALIDATION, found.labels, found.logits, means, *scores)


def _write(run: Run, step: int, fitted_on: str, labels, logits, means, energy_weight: float, scores) -> None:
    temperature = calibration.temperature(labels, logits)
    right = int(np.sum(logits.argmax(axis=1) == labels))
    trust.write(run.directory, trust.Trust(
        step, fitted_on, len(labels), right, temperature, means, energy_weight, scores))
    say(f'Temperature {temperature:.2f} and the threshold of `unknown` are fitted to {len(labels)} {fitted_on} '
        f'({trust.FILE}).')
