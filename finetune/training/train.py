"""A training from records to a run: opened, restored, carried out.

From here to a gradient it is two calls: the loop's `train_steps`, and its `gradients`.
"""

import contextlib
from pathlib import Path

from finetune.console import signals
from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.console.teams import ALONE, Team
from finetune.console.terminal import listed, warn
from finetune.models import cuts, engines
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.runs.run import Run, lock
from finetune.runs.state import State
from finetune.training import briefing, feeds, loop, opening, pretrained, towers
from finetune.training.feeds import Feed
from finetune.training.loop import Conduct


def train(
    directory: Path, data: Records, typed: dict, strategy, conduct: Conduct, override: bool = False, team: Team = ALONE
) -> Run | opening.Told:
    """Opens or makes the run, restores what there is to restore, and trains to the end.

    `typed` holds the fields of the recipe that somebody decided, as `recipes.plan` takes them.
    In a team the chief alone reads and writes the run; `strategy` is then over all machines.
    """
    with lock(directory) if team.is_chief else contextlib.nullcontext():  # Before anything is written there.
        run = opening.open_run(directory, data, typed, override) if team.is_chief else None
        run = opening.tell(run, team)
        if _trains_a_kept_head(run.recipe):  # On the chief alone: to sum its gradients takes longer than a step of it.
            strategy = towers.of_this_machine(strategy)
        if run.recipe.optimizer != 'regression':
            _check_towers(run.recipe, strategy)
        is_read = team.is_chief and run.recipe.pretrained and not run.steps()
        source = pretrained.read(run.recipe) if is_read else None
        team.met()  # The state is built together, and who waits inside TensorFlow hears of nothing.
        state = opening.build_state(run, data.split(run.recipe.subset).records, strategy)
        started = opening.start(run, state, source) if team.is_chief else []
        opening.share(state, team)
        parts = cuts.parts(state.model) if run.recipe.feature_cache == 'on' else None
        if team.is_chief:
            briefing.introduce(run, state, data, strategy, started, parts, team.count)
            _warn_of_unused(run.recipe, parts, typed, conduct)
        if run.recipe.optimizer != 'regression' or not run.steps():  # A head that is solved for is done.
            _work(run, state, data, parts, strategy, conduct, team)
    return run


def _trains_a_kept_head(recipe: recipes.Recipe) -> bool:
    return recipe.optimizer == 'regression' or (recipe.freeze_backbone and recipe.feature_cache == 'on')


def _work(
    run: Run | opening.Told, state: State, data: Records, parts: cuts.Parts | None, strategy, conduct: Conduct,
    team: Team,
) -> None:
    """Everything that takes long."""
    try:
        feed = _feed(run.recipe, state.model, data, parts, conduct, strategy, team)
        work = loop.solve_head if run.recipe.optimizer == 'regression' else loop.train_steps
        of_chief_alone = _trains_a_kept_head(run.recipe)
        if team.is_chief or not of_chief_alone:
            work(run, state, feed, strategy, conduct, team.of_chief_alone() if of_chief_alone else team)
        with signals.deferred() if not team.is_chief else contextlib.nullcontext():  # The chief hears of them.
            team.met()
    except tf.errors.OpError as error:
        dataset.check_unchanged(data.directory, data.fingerprint)
        if isinstance(error, tf.errors.DataLossError):
            dataset.verify(data)  # If a shard is damaged, this names it.
        raise


def _feed(
    recipe: recipes.Recipe, model, data: Records, parts: cuts.Parts | None, conduct: Conduct, strategy, team: Team
) -> Feed:
    here = strategy.num_replicas_in_sync // team.count if team.count > 1 else 1
    if parts is None:
        return feeds.of_pictures(model, recipe, data, conduct.threads, team, here)
    engine = engines.choose_for_features(conduct.engine, recipe.mixed_precision)
    chosen = team.gathered(engine)
    if len({*chosen}) > 1:
        raise Error(f'the machines would compute features with {listed(sorted({*chosen}))}, which give other numbers: '
                    f'type --engine={chosen[0]} or another one that all of them have.')
    directory = conduct.feature_dir or data.directory / 'features'
    return feeds.of_features(parts, recipe, data, directory, engine, conduct.threads, team, max(here, 1))


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
    if recipe.mixing() and recipe.batch_size // count % 2:
        raise Error(f'--batch_size={recipe.batch_size} gives each of {count} towers an odd number of pictures, which '
                    f'cannot be mixed in pairs. Use --batch_size={(recipe.batch_size // count + 1) * count}.')
