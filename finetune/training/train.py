"""A training from records to a run: opened, restored, carried out.

From here to a gradient it is two calls: the loop's `train_steps`, and its `gradients`.
"""

from pathlib import Path

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.console.terminal import warn
from finetune.models import cuts, engines
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.runs.run import Run, lock
from finetune.runs.state import State
from finetune.training import briefing, feeds, loop, opening, pretrained
from finetune.training.feeds import Feed
from finetune.training.loop import Conduct


def train(
    directory: Path, data: Records, typed: dict, strategy, conduct: Conduct, override: bool = False
) -> Run:
    """Opens or makes the run, restores what there is to restore, and trains to the end.

    `typed` holds the fields of the recipe that somebody decided, as `recipes.plan` takes them.
    """
    with lock(directory):  # Before anything is written there.
        run = opening.open_run(directory, data, typed, override)
        if run.recipe.optimizer != 'regression':
            _check_towers(run.recipe, strategy)
        source = pretrained.read(run.recipe) if run.recipe.pretrained and not run.steps() else None
        state = opening.build_state(run, data.split(run.recipe.subset).records, strategy)
        started = opening.start(run, state, source)
        parts = cuts.parts(state.model) if run.recipe.feature_cache == 'on' else None
        briefing.introduce(run, state, data, strategy, started, parts)
        if run.recipe.optimizer != 'regression' or not run.steps():  # A head that is solved for is done.
            _warn_of_unused(run.recipe, parts, typed, conduct)
            _work(run, state, data, parts, strategy, conduct)
    return run


def _work(run: Run, state: State, data: Records, parts: cuts.Parts | None, strategy, conduct: Conduct) -> None:
    """Everything that takes long."""
    try:
        feed = _feed(run.recipe, state.model, data, parts, conduct)
        work = loop.solve_head if run.recipe.optimizer == 'regression' else loop.train_steps
        work(run, state, feed, strategy, conduct)
    except tf.errors.OpError as error:
        dataset.check_unchanged(data.directory, data.fingerprint)
        if isinstance(error, tf.errors.DataLossError):
            dataset.verify(data)  # If a shard is damaged, this names it.
        raise


def _feed(recipe: recipes.Recipe, model, data: Records, parts: cuts.Parts | None, conduct: Conduct) -> Feed:
    if parts is None:
        return feeds.of_pictures(model, recipe, data, conduct.threads)
    engine = engines.choose_for_features(conduct.engine, recipe.mixed_precision)
    directory = conduct.feature_dir or data.directory / 'features'
    return feeds.of_features(parts, recipe, data, directory, engine, conduct.threads)


def _warn_of_unused(recipe: recipes.Recipe, parts: cuts.Parts | None, typed: dict, conduct: Conduct) -> None:
    unused, reason = (), ''
    if parts is None:
        unused, reason = recipes.OF_FEATURES, 'no outputs of frozen layers are kept'
    elif recipe.views == 1:
        unused = ('mirrored_view', *recipes.OF_DISTORTION)
        reason = 'the central view alone is kept of each picture (--views)'
    for name in unused:
        if name in typed or getattr(conduct, name, None):
            warn(f'--{name} is not used: {reason}')


def _check_towers(recipe: recipes.Recipe, strategy) -> None:
    count = strategy.num_replicas_in_sync
    if recipe.batch_size % count:
        raise Error(f'--batch_size={recipe.batch_size} cannot be split over {count} towers. '
                    f'Use --batch_size={max(1, recipe.batch_size // count) * count}.')
