"""How a training begins: its run, opened or made, and the state that the start table says."""

import dataclasses
from pathlib import Path

from finetune.console import machine
from finetune.console.errors import Error
from finetune.console.teams import Team
from finetune.console.terminal import count, printable, say, warn
from finetune.models import classifier
from finetune.models.averages import Averages
from finetune.records.dataset import Records
from finetune.runs import recipe as recipes
from finetune.runs.run import Run
from finetune.runs.state import State, build_model
from finetune.training import optimize, pretrained


def open_run(directory: Path, data: Records, typed: dict, override: bool = False) -> Run:
    """The run in the directory if it has got anywhere, else a new one there.

    `typed` holds the fields of its recipe that somebody decided; `override` goes on although they differ from before.
    """
    if Run.exists(directory) and Run(directory).steps():
        run = Run(directory)
        split = data.split(run.recipe.subset)
        _check_same(run, typed, data, override)
        if run.recipe.optimizer == 'regression' and run.records['fingerprint'] != data.fingerprint:
            raise Error(f'the head in {printable(run.directory)} was solved on other records and does not go on. '
                        'Use another --train_dir.')
        if typed.get('pretrained'):
            say(f'--pretrained is not used: {printable(directory)} has a checkpoint')
        kernels = machine.kernels()
        _say_if_kernels_change(run, kernels)
        run.change(recipes.extend(run.recipe, typed, split.records), _remembered(data, split), kernels)
        return run
    split = data.split(typed.get('subset', 'train'))
    if sum(count > 0 for count in split.per_class) < 2:
        raise Error(f'{printable(data.directory)} has training pictures of one class only; '
                    'there is nothing to tell apart.')
    source = pretrained.network(typed)
    recipe = recipes.plan(typed, source, split.records, len(data.labels))
    if recipe.optimizer != recipes.plan(typed, source, train_records=1).optimizer:
        say(f'The head of {count(split.records, "picture")} and {count(len(data.labels), "label")} is trained in '
            'steps: to solve for it at once would take long (--optimizer=regression does all the same).')
    return Run.create(directory, recipe, data.labels, _remembered(data, split))


@dataclasses.dataclass(frozen=True)
class Told:
    """A run that lies with the chief, as the other machines know it."""

    directory: Path
    recipe: recipes.Recipe
    labels: tuple[str, ...]
    records: dict
    saved: list[int]

    def steps(self) -> list[int]:
        return self.saved


def tell(run: Run | None, team: Team) -> Run | Told:
    """The chief's run, as it is or as it is told; a meeting."""
    facts = team.told(run and team.count > 1 and {
        'directory': str(run.directory.absolute()), 'recipe': dataclasses.asdict(run.recipe), 'labels': run.labels,
        'records': run.records, 'saved': run.steps()})
    if run:
        team.saved(max(run.steps(), default=None))
        return run
    directory, recipe = Path(facts['directory']), facts['recipe']
    return Told(directory, recipes.Recipe.from_json(recipe, directory), tuple(facts['labels']), facts['records'],
                facts['saved'])


def _say_if_kernels_change(run: Run, kernels: str) -> None:
    if run.kernels not in (kernels, None):
        say(f'This run was trained with {run.kernels} kernels and goes on with {kernels}, which round otherwise: it '
            'will be as good, not to the last bit what it would have been (TF_ENABLE_ONEDNN_OPTS chooses, on a CPU).')


def _remembered(data: Records, split) -> dict:
    return {'fingerprint': data.fingerprint, 'treatment': data.treatment, 'per_class': list(split.per_class)}


def _check_same(run: Run, typed: dict, data: Records, override: bool) -> None:
    """A run goes on with the labels, the records and the recipe that it began with."""
    place = printable(run.directory)
    if run.labels != data.labels:
        raise Error(f'{place} was trained on other labels ({", ".join(map(printable, run.labels[1:9]))}) '
                    f'than these records have ({", ".join(map(printable, data.labels[1:9]))}). '
                    f'Use another --train_dir, with --pretrained={place} --fine_tune to start from it.')
    occurring = [[bool(count) for count in counts]
                 for counts in (run.records['per_class'], data.split(run.recipe.subset).per_class)]
    if occurring[0] != occurring[1]:
        raise Error(f'other classes have training pictures now than when {place} began. Use another --train_dir, with '
                    f'--pretrained={place} --fine_tune to start from it.')
    changed = recipes.differences(run.recipe, typed)
    if override:
        for name, old, new in changed:
            warn(f'--{name}={new} is not used: the run goes on with {old}')
        return
    if run.records['fingerprint'] != data.fingerprint:
        raise Error(f'the records in {printable(data.directory)} are not those that {place} began with. '
                    'Use another --train_dir, or --override to go on with the new ones.')
    if changed:
        listed = '; '.join(f'--{name} was {old} and is now {new}' for name, old, new in changed)
        raise Error(f'{place} began with another recipe: {listed}. Leave the flag out, use another --train_dir, '
                    'or --override to go on with the old value.')


# What trains --------------------------------------------------------------------------------------------------------


def build_state(run: Run, train_records: int, strategy) -> State:
    """Everything that training changes, new."""
    model = build_model(run.recipe, len(run.labels), strategy)
    return state_of(model, run.recipe, train_records, strategy)


def state_of(model, recipe: recipes.Recipe, train_records: int, strategy) -> State:
    """The model, an optimizer for the heads, one for the backbone where it trains, and the averages."""
    groups = []
    with strategy.scope():
        auxiliary = classifier.with_auxiliary_head(
            model, recipe.model, recipe.batch_norm_momentum, recipe.seed) if recipe.aux_weight else None
        head, backbone = (model.get_layer(part).trainable_variables for part in ('head', 'backbone'))
        if auxiliary:
            head = head + auxiliary.head.trainable_variables
        for variables, factor in ((head, 1.0), (backbone, recipe.backbone_learning_rate_factor)):
            if variables and recipe.optimizer != 'regression':
                rate = optimize.schedule(
                    recipe.learning_rate_schedule, recipe.initial_learning_rate * factor,
                    steps_per_epoch=train_records / recipe.batch_size, max_steps=recipe.max_steps,
                    epochs_per_decay=recipe.num_epochs_per_decay, decay_factor=recipe.learning_rate_decay_factor,
                    pieces=recipe.pieces(), warmup_epochs=recipe.warmup_epochs)
                optimizer = optimize.optimizer(
                    recipe.optimizer, rate,
                    decay=recipe.rmsprop_decay, momentum=recipe.momentum, epsilon=recipe.rmsprop_epsilon,
                    weight_decay=recipe.weight_decay)
                optimizer.build(variables)
                groups.append((optimizer, variables))
        averages = Averages(model, recipe.moving_average_decay) if recipe.moving_average_decay else None
        return State(model, groups, averages, auxiliary)


def start(run: Run, state: State, source: pretrained.Source | None) -> list[str]:
    """Carries out the start table; returns what to say about it."""
    step = run.resume(state)
    if step is not None:
        return [f'goes on from step {step} in {printable(run.directory)}']
    lines = ['random weights']
    if source:
        lines = pretrained.restore(state.model, source, run.labels, run.recipe.fine_tune).lines()
    switch_off_unused(run, state)
    if state.averages:
        state.averages.start()
    return lines


def share(state: State, team: Team) -> None:
    """All machines begin with the chief's values; a meeting."""
    if team.count == 1:
        return
    variables = state.variables()
    for variable, value in zip(variables, team.shared([each.numpy() for each in variables]), strict=True):
        variable.assign(value)
    classifier.settle(state.model)


def switch_off_unused(run: Run, state: State) -> None:
    """The outputs of labels without training pictures, which are not to be the answer."""
    unused = [label for label, count in enumerate(run.records['per_class']) if not count]
    heads = [state.model.get_layer('head'), *([state.auxiliary.head] if state.auxiliary else [])]
    for head in heads:
        classifier.switch_off(head, unused)
