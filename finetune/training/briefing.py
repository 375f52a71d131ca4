"""What a training says before it begins and when it is done."""

from finetune.console import machine
from finetune.console.lazy import tf
from finetune.console.terminal import printable, say, say_next
from finetune.models import cuts, zoo
from finetune.runs import catalogue
from finetune.runs import recipe as recipes
from finetune.runs.run import Run
from finetune.runs.state import State
from finetune.training import towers


def introduce(
    run: Run, state: State, data, strategy, start: list[str], parts: cuts.Parts | None, machines: int = 1,
) -> None:
    """One screen: what was understood, and beside it the flags that change it."""
    recipe, split = run.recipe, data.split(run.recipe.subset)
    names = [label for label, count in zip(run.labels, split.per_class, strict=True) if count]
    shown = ', '.join(map(printable, names[:8])) + (', …' if len(names) > 8 else '')
    trains = _count(state.model.trainable_variables)
    extra = state.auxiliary and _count(state.auxiliary.head.trainable_variables)
    validated = data.splits['validation'].records if 'validation' in data.splits else 'none'
    kept = (f'; {data.splits["test"].records} more are kept for a test (finetune eval --subset=test)'
            if 'test' in data.splits else '')
    rows = {
        'Data': [f'{printable(data.directory)}: {split.records} pictures to train, {validated} to validate{kept}; '
                 f'{len(names)} classes: {shown}'],
        'Network': [f'{recipe.model}, width {recipe.width:g}, {recipe.image_size} px (--model --width --image_size)'
                    + (f', up to {recipe.feature_layers} (--feature_layers)' if recipe.feature_layers else '')],
        **({'Recipe': _about_recipe(recipe)} if recipe.recipe else {}),
        'Start': start,
        'Trains': [f'{trains:,} of {state.model.count_params():,} weights (--freeze_backbone --trainable_from); '
                   f'batch norm: {recipe.batch_norm} (--batch_norm)',
                   *([f'{extra:,} more in a new auxiliary head on {zoo.find(recipe.model).auxiliary}; its loss counts '
                      f'{recipe.aux_weight:g} times (--aux_weight)'] if extra else [])],
        **_about_length(recipe, parts),
        'Features': _about_features(recipe, state.model, parts),
        'Device': [f'{towers.describe(strategy, machines)} (--num_gpus), {machine.kernels()} kernels'],
        'Output': [f'{printable(run.directory)} (--train_dir)'],
    }
    for title, lines in rows.items():
        for i, line in enumerate(lines):
            say(f'{title if i == 0 else "":<11}{line}')


def _count(variables) -> int:
    return sum(int(tf.size(variable)) for variable in variables)


def _about_length(recipe: recipes.Recipe, parts: cuts.Parts | None) -> dict[str, list[str]]:
    """What is done with the pictures, and for how long."""
    if recipe.optimizer == 'regression':
        return {'Optimizer': ['softmax regression: the best head, at once (--optimizer); weight decay is chosen on '
                              'held-out tenths of the training pictures']}
    return {
        'Optimizer': [f'{recipe.optimizer}, learning rate {recipe.initial_learning_rate:g}{_about_schedule(recipe)} '
                      '(--optimizer --initial_learning_rate --learning_rate_schedule)'],
        'Pictures': [f'{recipe.batch_size} a step (--batch_size), {_about_distortion(recipe, parts)}'],
        'Length': [f'{recipe.max_steps} steps, {recipe.epochs:.3g} epochs (--epochs --max_steps)'],
    }


def _about_recipe(recipe: recipes.Recipe) -> list[str]:
    """The named recipe, and what of it other flags have changed."""
    named = catalogue.find(recipe.recipe)
    changed = [f'--{name}={_short(getattr(recipe, name))} instead of {_short(value)}'
               for name, value in named.flags.items() if getattr(recipe, name) != value]
    return [f'{named.name} (--recipe): {named.about}; published: {named.published}',
            *([f'changed: {", ".join(changed)}'] if changed else [])]


def _short(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _about_schedule(recipe: recipes.Recipe) -> str:
    warmup = f' after {recipe.warmup_epochs:g} epochs of warm-up' if recipe.warmup_epochs else ''
    falls = {
        'exponential': f', × {recipe.learning_rate_decay_factor:g} every {recipe.num_epochs_per_decay:g} epochs '
                       '(--learning_rate_decay_factor --num_epochs_per_decay)',
        'piecewise': ''.join(f', × {multiple:g} from epoch {epoch:g}' for epoch, multiple in recipe.pieces().items())
                     + ' (--learning_rate_pieces)',
        'cosine': ', along a cosine to 0',
        'inverse_time': f', half of it after {recipe.num_epochs_per_decay:g} epochs (--num_epochs_per_decay)',
        'constant': '',
    }
    return warmup + falls[recipe.learning_rate_schedule]


def _about_distortion(recipe: recipes.Recipe, parts: cuts.Parts | None) -> str:
    if parts and recipe.views == 1:
        return 'not distorted, since one view of each is kept (--views)'
    return f'distortion {recipe.distortion} (--distortion)'


def _about_features(recipe: recipes.Recipe, model, parts: cuts.Parts | None) -> list[str]:
    """How what is frozen is computed; nothing where nothing is."""
    if parts:
        views = f'{recipe.views} views' if recipe.views > 1 else 'the central view'
        return [f'all up to {parts.cut} is frozen: computed once for {views} of each picture (--views), kept in '
                f'{recipe.feature_dtype} (--feature_dtype); --feature_cache=off computes it at every step']
    if recipe.feature_cache == 'on' and any(map(cuts.is_frozen, model.get_layer('backbone').layers)):
        return [f'no place before {recipe.trainable_from} has all paths of the network pass through it, so what is '
                'frozen is computed at every step (--trainable_from)']
    return []


def conclude(run: Run, data) -> None:
    best = run.best_step
    later = '' if run.recipe.optimizer == 'regression' else ' (--epochs or --max_steps sets a later end)'
    say(f'Done at step {run.steps()[-1]} of {run.recipe.max_steps}{later}.')
    say(f'{printable(run.directory)} holds the last checkpoint (step {run.steps()[-1]})'
        + (f', the best (step {best})' if best is not None else '') + ', metrics.csv and TensorBoard events.')
    checkpoint_dir = f'--checkpoint_dir={run.directory}'
    evaluation = 'finetune', 'eval', checkpoint_dir, f'--data_dir={data.directory}', '--run_once'
    if 'validation' in data.splits:
        say_next(*evaluation)
        return
    say('Nothing measured it: the records have no validation pictures (finetune build --validation_percent or '
        '--validation_directory).')
    if 'test' in data.splits:
        say_next(*evaluation, '--subset=test')
    else:
        say_next('finetune', 'predict', checkpoint_dir, 'photo.jpg', 'folder/')
