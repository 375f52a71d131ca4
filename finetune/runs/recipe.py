"""Everything that decides which numbers a run computes."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from pathlib import Path

from finetune.console.command import Flags
from finetune.console.errors import Error, UsageError
from finetune.models import zoo
from finetune.pictures.mixing import Mixing
from finetune.pictures.views import DISTORTIONS, Distortion
from finetune.runs import catalogue

OPTIMIZERS = ('rmsprop', 'sgd', 'momentum', 'nesterov', 'adam', 'adamw', 'adadelta')  # `optimize` makes them.
SCHEDULES = ('exponential', 'piecewise', 'cosine', 'inverse_time', 'constant')


def _option(group: str, default, help: str, choices: tuple[str, ...] = (), least=None, most=None, changeable=False,
            is_path=False):
    """A field of the recipe and the flag that sets it. A default of None is filled in by `plan`.

    A changeable field decides nothing about the steps that are already done.
    """
    metadata = {
        'group': group, 'help': help, 'choices': choices, 'least': least, 'most': most, 'changeable': changeable,
        'is_path': is_path}
    return dataclasses.field(default=default, metadata=metadata)


NETWORK = 'mobilenet_v2'  # Where neither --model nor --pretrained names one.
PLANS = {  # Measured to work without tuning; docs/results.md says on what.
    'head': {'rate': 0.01, 'decay': 4.0, 'epochs': 10.0},  # --freeze_backbone
    'tuned': {'rate': 0.01, 'decay': 8.0, 'epochs': 20.0},  # --pretrained
    'new': {'rate': 0.02, 'decay': 30.0, 'epochs': 60.0},  # Random weights.
}
MOST_ROWS = 400_000  # Pictures x views whose head is solved at once: of 2,048 channels they take 3.3 GB;
MOST_ANSWERS = 1.2 * 10**8  # and these x classes, which takes some minutes: docs/scale.md. A head to more takes steps.
USUAL_RATES = {  # Of those whose steps are not in proportion to the gradient.
    'adam': 0.001, 'adamw': 0.001, 'adadelta': 1.0}


def _plans(name: str) -> str:
    head, tuned, new = (f'{PLANS[plan][name]:g}' for plan in PLANS)
    return f'{tuned} with --pretrained, {head} for the steps of a head alone, else {new}'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One field a flag of `finetune train`. After `plan` no field is None."""

    recipe: str = _option(
        'recipe', '', 'a named recipe to begin with, which other flags change (`finetune recipes` lists them)')

    model: str = _option(
        'network', None, 'inception_v3, resnet50, mobilenet_v2 or another network of keras.applications; '
        'efficientnet_lite0, _lite1, _lite2; mnist_cnn, alexnet, resnet20_cifar, densenet_bc, all_cnn (default: that '
        f'of --pretrained, else {NETWORK})')
    width: float = _option(
        'network', None, 'width multiplier, of MobileNets and classics (default: that of --pretrained, else 1.0)',
        least=0.01)
    image_size: int = _option(
        'network', None, 'side of the square input in pixels (default: what the network was made for)', least=8)
    crop_fraction: float = _option(
        'network', 0.875, 'central part of each side that evaluation looks at', least=0.01, most=1.0)
    feature_layers: str = _option(
        'network', '', 'layers or blocks of the backbone whose averaged outputs, side by side, the head reads, e.g. '
        'mixed8,mixed9; what comes after them is left out (default: the last one; with --fine_tune --freeze_backbone '
        'those that were measured to be better)')
    dropout: float = _option(
        'network', 0.2, 'share of the pooled features that is dropped while training', least=0.0, most=0.99)

    pretrained: str = _option(
        'start', '', 'first weights: a run directory, a weights file (.weights.h5, .h5), imagenet, or sample; '
        'used when --train_dir has no checkpoint yet', changeable=True, is_path=True)
    fine_tune: bool = _option(
        'start', False, 'take the backbone from --pretrained and start with a new head', changeable=True)

    freeze_backbone: bool = _option('what trains', False, 'train the head alone')
    trainable_from: str = _option('what trains', '', 'train from this layer or block of the backbone on, e.g. block_13')
    backbone_learning_rate_factor: float = _option(
        'what trains', 1.0, 'learning rate of the backbone as a multiple of that of the head', least=0.0)
    batch_norm: str = _option(
        'what trains', None, 'whether the statistics of batch normalisation stay still or train '
        '(default: still with --pretrained, else train; those of frozen layers always stay still)', ('still', 'train'))
    batch_norm_momentum: float = _option(
        'what trains', 0.99, 'of the running statistics where they train; the 0.999 of some networks lags behind for '
        'thousands of steps', least=0.0, most=1.0)

    feature_cache: str = _option(
        'frozen features', 'on', 'compute the outputs of the frozen layers once for every picture and train from '
        'them; the distortion then applies to the views that are kept', ('on', 'off'))
    views: int = _option(
        'frozen features', 1, 'views of each training picture to keep: 1 is the central crop that evaluation sees, '
        'more add distorted ones; an epoch uses one view of every picture', least=1)
    mirrored_view: bool = _option(
        'frozen features', False, 'the second of --views is not distorted but the central one, mirrored')
    feature_dtype: str = _option(
        'frozen features', 'float16', 'precision that they are kept in', ('float16', 'float32'))

    optimizer: str = _option(
        'optimizer', None, 'which; regression solves for the best head on kept features at once (default: regression '
        'with --freeze_backbone where no flag asks for steps, else rmsprop)', (*OPTIMIZERS, 'regression'))
    initial_learning_rate: float = _option('optimizer', None, f'at step 0 (default: {_plans("rate")})', least=0.0)
    num_epochs_per_decay: float = _option(
        'optimizer', None, f'epochs between two steps down of the learning rate (default: {_plans("decay")})',
        least=0.01)
    learning_rate_decay_factor: float = _option(
        'optimizer', 0.16, 'each step down multiplies the learning rate by this', least=0.0, most=1.0)
    learning_rate_schedule: str = _option(
        'optimizer', 'exponential', 'how it falls: by steps down of equal length and factor; as --learning_rate_pieces '
        'says; along a cosine to 0 at the end; to 1/(1 + epochs / --num_epochs_per_decay) of it; or not at all',
        SCHEDULES)
    learning_rate_pieces: str = _option(
        'optimizer', '', 'EPOCH:MULTIPLE,…: from that epoch on, that multiple of --initial_learning_rate, e.g. '
        '91:0.1,136:0.01')
    warmup_epochs: float = _option('optimizer', 0.0, 'epochs in which the learning rate rises from 0', least=0.0)
    rmsprop_decay: float = _option('optimizer', 0.9, 'decay of the mean square', least=0.0, most=1.0)
    momentum: float = _option('optimizer', 0.9, 'of rmsprop, momentum and nesterov', least=0.0, most=1.0)
    rmsprop_epsilon: float = _option(
        'optimizer', 1.0, 'inside the square root; far smaller ones need far smaller rates', least=1e-10)
    label_smoothing: float = _option(
        'optimizer', 0.0, 'probability spread over the classes that occur', least=0.0, most=1.0)
    class_weights: str = _option(
        'optimizer', 'none', 'what a picture counts in the loss: all the same, or balanced, so that each class counts '
        'the same, however many pictures it has', ('none', 'balanced'))
    aux_weight: float = _option(
        'optimizer', 0.0, 'weight of the loss of an auxiliary head in the middle of the network, which is there in '
        'training only (0: none; inception_v3 has one, originally at 0.4)', least=0.0)
    weight_decay: float = _option(
        'optimizer', 0.00004, 'times half the sum of squares of the kernels is added to the loss; of adamw, times the '
        'learning rate is taken off the kernels at each step', least=0.0)
    gradient_clip: float = _option(
        'optimizer', None, 'largest global norm of the gradients, 0: no limit (default: 1 with --pretrained, else 0)',
        least=0.0)
    moving_average_decay: float = _option(
        'optimizer', 0.9999, 'of the averaged weights that evaluation uses (0: none)', least=0.0, most=1.0)

    subset: str = _option('data', 'train', 'split to train on')
    batch_size: int = _option('data', 32, 'pictures a step, over all towers together', least=1)
    distortion: str = _option('data', 'mild', 'how far training pictures are varied', tuple(DISTORTIONS))
    min_crop_area: float = _option(
        'data', None, 'smallest part of a picture that a crop keeps (default: by --distortion)', least=0.01, most=1.0)
    max_aspect: float = _option('data', None, 'most that a crop is stretched (default: by --distortion)', least=1.0)
    flip: bool = _option('data', None, 'mirror half of the pictures (default: by --distortion)')
    color_distortion: float = _option(
        'data', None, 'strength of colour changes (default: by --distortion)', least=0.0, most=1.0)
    shift: float = _option(
        'data', None, 'most that a picture is moved, as a share of its side (default: by --distortion)', least=0.0,
        most=1.0)
    mixup: float = _option(
        'data', 0.0, 'mix each two pictures of a batch, and their labels, by shares drawn from Beta(X, X) (0: not)',
        least=0.0)
    cutmix: float = _option(
        'data', 0.0, 'put a rectangle of each two pictures of a batch into the other; its area is drawn from '
        'Beta(X, X) (0: not)', least=0.0)
    seed: int = _option(
        'data', 1, 'decides the order of the pictures, the distortions and the new weights', least=0,
        most=2**31 - 1)

    max_steps: int = _option('length', None, 'steps until the end (default: by --epochs)', least=1, changeable=True)
    epochs: float = _option(
        'length', None, f'times that every picture is seen (default: {_plans("epochs")})', least=0.001, changeable=True)
    patience: int = _option(
        'length', 0, 'end early after so many epochs without a better validation precision@1 (0: never)', least=0,
        changeable=True)
    keep_best: bool = _option(
        'length', True, 'keep the checkpoint with the best validation precision@1, for eval and predict to use; '
        'without it they use the last one, whose figures no choice makes look better than they are')
    keep_every_epochs: int = _option(
        'length', 0, 'keep a checkpoint for good after every so many epochs (0: only the best and the newest stay)',
        least=0, changeable=True)

    mixed_precision: bool = _option('device', False, 'compute in bfloat16 where it is safe')

    def distorted(self) -> Distortion:
        return dataclasses.replace(
            DISTORTIONS[self.distortion], min_crop_area=self.min_crop_area, max_aspect=self.max_aspect,
            flip=self.flip, color=self.color_distortion, shift=self.shift)

    def mixing(self) -> Mixing | None:
        return Mixing(self.mixup, self.cutmix) if self.mixup or self.cutmix else None

    @property
    def weight_decay_in_loss(self) -> float:
        return 0.0 if self.optimizer == 'adamw' else self.weight_decay

    def weights_of_classes(self, per_class: Sequence[int]) -> list[float] | None:
        """What a picture of each class counts, 1 on average over all pictures; None where all count the same."""
        if self.class_weights == 'none':
            return None
        each = sum(per_class) / sum(count > 0 for count in per_class)
        return [each / count if count else 0.0 for count in per_class]

    def pieces(self) -> dict[float, float]:
        """By epoch the multiple of the learning rate that holds from there on."""
        try:
            pieces = [tuple(map(float, piece.split(':'))) for piece in self.learning_rate_pieces.split(',') if piece]
            if not all(0 <= number < math.inf for piece in pieces for number in piece):
                raise ValueError
            return {epoch: multiple for epoch, multiple in pieces}
        except ValueError:
            raise UsageError(f'--learning_rate_pieces={self.learning_rate_pieces} is not understood: expected '
                             'EPOCH:MULTIPLE,…, as in 91:0.1,136:0.01') from None

    @classmethod
    def from_json(cls, values: dict, path: Path) -> 'Recipe':
        unknown = set(values) - set(FIELDS)
        if unknown:
            raise Error(f'{path} has {", ".join(sorted(unknown))}, which this version does not know. '
                        'Use the version that wrote it, or another --train_dir.')
        senseless = [field.name for field in dataclasses.fields(cls) if field.name in values
                     and not _makes_sense(field, values[field.name])]
        if senseless:
            raise Error(f'{path} has values of another kind for {", ".join(senseless)}: this program did not write '
                        'it. Restore it, or use another --train_dir.')
        recipe = cls(**values)
        return dataclasses.replace(recipe, **_distortion(recipe))  # An older version had fewer.


def _makes_sense(field: dataclasses.Field, value) -> bool:
    kind = typing.get_type_hints(Recipe)[field.name]
    choices = field.metadata['choices']
    return isinstance(value, (int, float) if kind is float else kind) and (not choices or value in choices)


STEPS_ALONE = (  # Flags that mean nothing to --optimizer=regression: to type one is to ask for steps.
    'dropout', 'initial_learning_rate', 'num_epochs_per_decay', 'learning_rate_decay_factor', 'rmsprop_decay',
    'momentum', 'rmsprop_epsilon', 'weight_decay', 'gradient_clip', 'moving_average_decay', 'batch_size', 'max_steps',
    'epochs', 'patience', 'learning_rate_schedule', 'learning_rate_pieces', 'warmup_epochs', 'keep_best',
    'keep_every_epochs')
# That mean something where features are kept,
OF_FEATURES = ('views', 'mirrored_view', 'feature_dtype', 'feature_dir', 'engine')
OF_DISTORTION = (  # and where more than the central view is.
    'distortion', 'min_crop_area', 'max_aspect', 'flip', 'color_distortion', 'shift')
FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
CHANGEABLE = tuple(field.name for field in dataclasses.fields(Recipe) if field.metadata['changeable'])


def add_flags(flags: Flags, names: Sequence[str] = FIELDS) -> None:
    """One flag a field, or for each of those named, in the groups and the order above."""
    kinds = {str: flags.string, int: flags.integer, float: flags.number, bool: flags.switch}
    types = typing.get_type_hints(Recipe)
    for field in dataclasses.fields(Recipe):
        if field.name not in names:
            continue
        flags.group(field.metadata['group'])
        if field.metadata['choices']:
            flags.choice(field.name, field.default, field.metadata['choices'], field.metadata['help'])
        else:
            bounds = {name: field.metadata[name] for name in ('least', 'most') if field.metadata[name] is not None}
            add = flags.path if field.metadata['is_path'] else kinds[types[field.name]]
            add(field.name, field.default, field.metadata['help'], **bounds)


def plan(typed: dict, source: Recipe | None, train_records: int, classes: int = 2) -> Recipe:
    """The whole recipe: what was typed, then what the named recipe says, and for the rest what is known to work.

    `typed` holds the flags that were given, by name. `source` is the recipe of the network behind --pretrained, if it
    has one. `train_records` turns epochs into steps, once; with `classes` it says whether a head can be solved at once.
    """
    typed = _named(typed) | typed
    same_network = source is not None and typed.get('model', source.model) == source.model
    values = _network(typed, source if same_network else None) | typed
    values |= {name: value for name, value in _training(values, train_records, classes).items() if name not in typed}
    recipe = dataclasses.replace(Recipe(), **values)
    recipe = dataclasses.replace(recipe, **_distortion(recipe))
    _check(recipe, typed)
    return dataclasses.replace(recipe, **_length(recipe, typed, train_records))


def _named(typed: dict) -> dict:
    """What the named recipe says, but for the length or the pieces of its schedule where others were typed."""
    values = dict(catalogue.find(typed['recipe']).flags) if typed.get('recipe') else {}
    if {'max_steps', 'epochs'} & typed.keys():
        values.pop('max_steps', None)
        values.pop('epochs', None)
    if typed.get('learning_rate_schedule', 'piecewise') != 'piecewise':
        values.pop('learning_rate_pieces', None)
    return values


def extend(recipe: Recipe, typed: dict, train_records: int) -> Recipe:
    """The same recipe with another end, where another one was typed."""
    typed = {name: typed[name] for name in CHANGEABLE if name in typed and typed[name] != getattr(recipe, name)}
    if typed and recipe.optimizer == 'regression':
        raise UsageError(f'--{next(iter(typed))}: the head of this run was solved at once (--optimizer=regression), '
                         'it has no later end. Use another --train_dir.')
    another_length = {'max_steps', 'epochs'} & typed.keys()
    if another_length and recipe.learning_rate_schedule == 'cosine':
        raise UsageError('the learning rate of this run falls to 0 at its end (--learning_rate_schedule=cosine), so it '
                         'has no other end. Use another --train_dir, with --pretrained to start from it.')
    recipe = dataclasses.replace(recipe, **typed)
    return dataclasses.replace(recipe, **_length(recipe, typed, train_records)) if another_length else recipe


def _network(typed: dict, source: Recipe | None) -> dict:
    if source:
        return {'model': source.model, 'width': source.width, 'image_size': source.image_size,
                'crop_fraction': source.crop_fraction, 'feature_layers': source.feature_layers}
    model = typed.get('model', NETWORK)
    return {'model': model, 'width': 1.0, 'image_size': zoo.find(model).size,
            'feature_layers': read_by_the_head(model, typed)}


def read_by_the_head(model: str, typed: dict) -> str:
    """Where no --feature_layers were typed. A backbone that trains brings what is needed to its last layer itself."""
    stays = typed.get('fine_tune') and typed.get('freeze_backbone')
    return ','.join(zoo.find(model).blocks) if stays else ''


def _training(values: dict, train_records: int, classes: int) -> dict:
    """Rates and lengths that were measured to work without tuning; docs/results.md says from what."""
    what_trains = 'head' if values.get('freeze_backbone') else 'tuned' if values.get('pretrained') else 'new'
    plan = PLANS[what_trains]
    return {'optimizer': _optimizer(values, train_records, classes), 'initial_learning_rate': plan['rate'],
            'epochs': plan['epochs'], 'num_epochs_per_decay': plan['decay'],
            'gradient_clip': 1.0 if values.get('pretrained') else 0.0,
            'batch_norm': 'still' if values.get('pretrained') else 'train'}


def _optimizer(values: dict, train_records: int, classes: int) -> str:
    solvable = values.get('freeze_backbone') and values.get('feature_cache') != 'off'
    asks_for_steps = any(name in values for name in STEPS_ALONE)
    rows = train_records * values.get('views', 1)
    return 'regression' if solvable and not asks_for_steps and not is_too_much_to_solve(rows, classes) else 'rmsprop'


def is_too_much_to_solve(rows: int, classes: int) -> bool:
    return rows > MOST_ROWS or rows * classes > MOST_ANSWERS


def _distortion(recipe: Recipe) -> dict:
    named = DISTORTIONS[recipe.distortion]
    chosen = {'min_crop_area': named.min_crop_area, 'max_aspect': named.max_aspect, 'flip': named.flip,
              'color_distortion': named.color, 'shift': named.shift}
    return {name: value for name, value in chosen.items() if getattr(recipe, name) is None}


def flips(typed: dict) -> bool:
    """Whether a picture and its mirror image are of one class: of digits and letters they are not."""
    return typed.get('flip', DISTORTIONS[typed.get('distortion', Recipe.distortion)].flip)


def _length(recipe: Recipe, typed: dict, train_records: int) -> dict:
    if recipe.optimizer == 'regression':
        return {'max_steps': 1, 'epochs': 1.0}
    steps_per_epoch = train_records / recipe.batch_size
    if 'max_steps' in typed and 'epochs' in typed:
        raise UsageError('--max_steps and --epochs both say when the training ends: give one of them')
    if 'max_steps' in typed:
        return {'epochs': recipe.max_steps / steps_per_epoch}
    return {'max_steps': max(1, round(recipe.epochs * steps_per_epoch))}


def _check(recipe: Recipe, typed: dict) -> None:
    if recipe.fine_tune and not recipe.pretrained:
        raise UsageError('--fine_tune takes the backbone from --pretrained, which was not given. '
                    'Add --pretrained=sample, --pretrained=imagenet, or --pretrained=PATH.')
    if recipe.freeze_backbone and recipe.trainable_from:
        raise UsageError('--freeze_backbone trains the head alone and --trainable_from trains a part of the backbone '
                         'too: give one of them.')
    _check_auxiliary(recipe)
    _check_mixing(recipe)
    if recipe.optimizer in USUAL_RATES and 'initial_learning_rate' not in typed:
        usual = USUAL_RATES[recipe.optimizer]
        raise UsageError(f'--optimizer={recipe.optimizer} needs a learning rate of its own; often '
                         f'--initial_learning_rate={usual:g}, with --pretrained less.')
    if bool(recipe.pieces()) != (recipe.learning_rate_schedule == 'piecewise'):
        raise UsageError('--learning_rate_pieces and --learning_rate_schedule=piecewise need each other: give both, or '
                         'neither.')
    if recipe.optimizer != 'regression':
        return
    if not recipe.freeze_backbone or recipe.feature_cache == 'off':
        raise UsageError('--optimizer=regression solves for the head on kept features: it needs --freeze_backbone and '
                         '--feature_cache=on.')
    of_steps = [f'--{name}' for name in STEPS_ALONE if name in typed]
    if of_steps:
        raise UsageError(f'--optimizer=regression takes no steps, so {of_steps[0]} has nothing to do. '
                         'Leave one of the two out.')


def _check_mixing(recipe: Recipe) -> None:
    flag = 'mixup' if recipe.mixup else 'cutmix'
    if recipe.mixing() and recipe.feature_cache == 'on' and (recipe.freeze_backbone or recipe.trainable_from):
        raise UsageError(f'--{flag} mixes pixels, and of frozen layers the outputs are kept: add --feature_cache=off.')
    if recipe.mixing() and recipe.batch_size % 2:
        raise UsageError(f'--{flag} mixes pictures in pairs: --batch_size={recipe.batch_size} has to be even.')


def _check_auxiliary(recipe: Recipe) -> None:
    if recipe.aux_weight and not zoo.find(recipe.model).auxiliary:
        having = ', '.join(name for name, net in zoo.NETS.items() if net.auxiliary)
        raise UsageError(f'--aux_weight={recipe.aux_weight:g} is for networks with an auxiliary head ({having}); '
                         f'{recipe.model} has none. Use --aux_weight=0.')
    if recipe.aux_weight and (recipe.freeze_backbone or recipe.trainable_from):
        raise UsageError(f'--aux_weight={recipe.aux_weight:g} helps the layers before the auxiliary head to learn, and '
                         '--freeze_backbone and --trainable_from keep them as they are. Use --aux_weight=0.')


def differences(old: Recipe, typed: dict) -> list[tuple[str, object, object]]:
    """(name, old value, typed value) of every typed flag that would make the run compute other numbers."""
    return [(name, getattr(old, name), typed[name]) for name in FIELDS
            if name in typed and name not in CHANGEABLE and typed[name] != getattr(old, name)]
