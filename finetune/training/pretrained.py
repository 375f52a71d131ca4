"""Where the first weights come from.

| run directory    | --pretrained | --fine_tune | starts from                                                   |
|------------------|--------------|-------------|---------------------------------------------------------------|
| has a checkpoint | any          | any         | that checkpoint, whole: weights, optimizer, averages, step,    |
|                  |              |             | place in the data                                             |
| empty            | –            | –           | random weights                                                |
| empty            | given        | no          | all weights; an error that lists both heads if the classes    |
|                  |              |             | differ                                                        |
| empty            | given        | yes         | backbone weights, a new head                                  |
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.console.terminal import printable, some
from finetune.models import classifier, packages, weights, zoo
from finetune.runs import recipe as recipes
from finetune.runs.recipe import Recipe
from finetune.runs.run import Run

SAMPLE = Path(weights.__file__).with_name('sample')  # The small backbone that this project trained itself.
OF_A_NETWORK = ('model', 'width', 'feature_layers', 'trainable_from')  # Who types one has a network in mind.
ENOUGH = 0.9  # Share of the backbone's layers that must be found.


@dataclasses.dataclass(frozen=True)
class Source:
    """First weights, wherever they are from. `head` is (kernel [features, outputs], bias [outputs]) or None."""

    name: str
    weights: weights.Weights
    head: tuple[np.ndarray, np.ndarray] | None = None
    labels: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every tensor, by layer."""

    name: str
    restored: list[str]
    missing: list[str]
    left_over: list[str]
    tensors: int
    head: str
    zeros: list[str]

    def lines(self) -> list[str]:
        lines = [f'restored {self.tensors} tensors of {len(self.restored)} backbone layers from {printable(self.name)}',
                 f'head: {self.head}']
        for title, names in {'new (not in the file)': self.missing, 'left over in the file': self.left_over,
                             'all zeros in the file, so what passes through them is lost': self.zeros}.items():
            if names:
                lines.append(f'{title}: {some(names)}')
        return lines


def network(typed: Mapping) -> Recipe | None:
    """The recipe behind --pretrained, where it has one: a run's, or the sample's.

    `imagenet` is the weights of any network: unless one was typed, those that are installed have one on a CPU.
    """
    pretrained = typed.get('pretrained', '')
    if pretrained == 'imagenet':
        return None if any(map(typed.get, OF_A_NETWORK)) else _installed(typed)
    if pretrained == 'sample':
        if not Run.exists(SAMPLE):
            raise Error('--pretrained=sample: this installation has no sample backbone; '
                        'CONTRIBUTING.md says how it is made.')
        return Run(SAMPLE).recipe
    if pretrained and Run.exists(pretrained):
        return Run(pretrained).recipe
    return None


def _installed(typed: Mapping) -> Recipe | None:
    """The default of a CPU; that of a GPU stays what it was, as nothing was measured there."""
    if packages.directory(packages.DEFAULT) is None or tf.config.list_physical_devices('GPU'):
        return None
    return Recipe(model=packages.DEFAULT, width=1.0, image_size=zoo.find(packages.DEFAULT).size,
                  feature_layers=recipes.read_by_the_head(packages.DEFAULT, typed))


def read(recipe: Recipe) -> Source:
    """The weights that `recipe.pretrained` names."""
    name = recipe.pretrained
    if name == 'imagenet':
        return _imagenet(recipe)
    if name == 'sample':
        return Source('sample', weights.read(SAMPLE / 'backbone.weights.h5'))
    if Run.exists(name):
        return _of_run(Run(name))
    if Path(name).is_dir():
        raise Error(f'--pretrained={printable(name)} is a directory without recipe.json, so not a run. '
                    'Give the --train_dir of an earlier training, or a weights file.')
    return Source(name, weights.read(Path(name)))


def restore(model, source: Source, labels: Sequence[str], fine_tune: bool) -> Report:
    """Copies the source's weights into the model, by name and shape; with `fine_tune` the head stays new."""
    ours = {layer.name for layer in model.get_layer('backbone').layers}
    layers = classifier.whole(model.get_layer('backbone')).layers
    keys, left_over = source.weights.match(layers)
    restored, missing, zeros = [], [], []
    for key, layer in zip(keys, [layer for layer in layers if layer.weights], strict=True):
        if layer.name not in ours:
            left_over += [key] if key else []
            continue
        arrays = source.weights.layers.get(key, [])
        if not weights.fit(arrays, layer):
            missing.append(_mismatch(layer, arrays))
            continue
        layer.set_weights(arrays)
        restored.append(layer)
        if 'kernel' in layer.weights[0].name and not arrays[0].any():
            zeros.append(layer.name)
    classifier.settle(model)
    _check_enough(source, restored, missing)
    head = 'new'
    if not fine_tune:
        head = _restore_head(model, source, left_over, labels)
        left_over = []
    return Report(source.name, [layer.name for layer in restored], missing, left_over,
                  sum(len(layer.weights) for layer in restored), head, zeros)


def _mismatch(layer, arrays: list) -> str:
    shapes = ', '.join(str(tuple(weight.shape)) for weight in layer.weights)
    found = ', '.join(str(array.shape) for array in arrays)
    return f'{layer.name} (needs {shapes}; {f"the file has {found}" if arrays else "not in the file"})'


def _check_enough(source: Source, restored: list, missing: list[str]) -> None:
    total = len(restored) + len(missing)
    if len(restored) < ENOUGH * total:
        raise Error(f'only {len(restored)} of the {total} layers of this network are in {printable(source.name)}: '
                    f'{some(missing)}. It belongs to another network: give its --model, --width, --image_size or '
                    '--feature_layers.')


def _restore_head(model, source: Source, left_over: list[str], labels: Sequence[str]) -> str:
    """Outputs that the source had switched off stay new: without a gradient they would be off for good."""
    kernel, bias = model.get_layer('head').get_layer('logits').weights
    stored = source.head or _head_in(source.weights, left_over, features=kernel.shape[0])
    if stored is None:
        raise Error(f'{printable(source.name)} has no head that fits this network, only a backbone. '
                    'Add --fine_tune to start with a new head.')
    stored_kernel, stored_bias = stored
    outputs = stored_bias.shape[0]
    same_labels = source.labels is None or tuple(source.labels) == tuple(labels)
    has_no_background = source.labels is None and outputs == len(labels) - 1  # As published heads.
    if not has_no_background and (outputs != len(labels) or not same_labels):
        raise Error(f'the head in {printable(source.name)} has {outputs} outputs{_listed(source.labels)}; '
                    f'these records need {len(labels)}{_listed(labels)}. Add --fine_tune to keep the backbone '
                    'and start with a new head.')
    on = np.flatnonzero(stored_bias > classifier.NEVER / 2)
    new_kernel, new_bias = kernel.numpy(), bias.numpy()
    new_kernel[:, on + has_no_background] = stored_kernel[:, on]
    new_bias[on + has_no_background] = stored_bias[on]
    kernel.assign(new_kernel)
    bias.assign(new_bias)
    return f'restored, {outputs} outputs'


def _head_in(stored: weights.Weights, left_over: list[str], features: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The one layer that a file has beyond the backbone, where it maps pooled features to classes."""
    if len(left_over) != 1 or len(stored.layers[left_over[0]]) != 2:
        return None
    kernel, bias = stored.layers[left_over[0]]
    kernel = kernel.reshape(-1, kernel.shape[-1])  # MobileNet's is a 1x1 convolution.
    return (kernel, bias) if kernel.shape == (features, len(bias)) else None


def _of_run(run: Run) -> Source:
    loaded = run.load()
    head = loaded.model.get_layer('head').get_layer('logits').get_weights()
    return Source(loaded.path, weights.of_model(loaded.model.get_layer('backbone')), tuple(head), run.labels)


def _imagenet(recipe: Recipe) -> Source:
    """From an installed package, or downloaded by Keras into ~/.keras/models and checked there."""
    if recipe.model in packages.PACKAGES:
        return Source('imagenet', packages.read(recipe.model, include_top=not recipe.fine_tune))
    classifier.start_afresh(recipe.seed)  # So that layers get the names they get in our own model.
    try:
        model = zoo.backbone(
            recipe.model, recipe.image_size, recipe.width, 'imagenet', include_top=not recipe.fine_tune)
    except Error:
        raise
    except Exception as error:  # keras.utils.get_file raises plain Exceptions.
        url = re.search(r'https?://\S+\.h5', str(error))
        reason = str(error).rsplit(' -- ', 1)[-1]  # Keras: 'URL fetch failure on URL: CODE -- REASON'.
        wanted = f'{url[0].rsplit("/", 1)[-1]} from {url[0]}' if url else f'the weights of {recipe.model}'
        raise Error(f'--pretrained=imagenet: the weights are not in ~/.keras/models and could not be downloaded '
                    f'({printable(reason)[:200]}). Fetch {wanted} on a machine with a network '
                    f"and give --pretrained=PATH, or pip install 'finetune[lite]' and --model={packages.DEFAULT}, "
                    'or begin with --pretrained=sample, which needs nothing and answers less well.') from None
    return Source('imagenet', weights.of_model(model))


def _listed(labels: Sequence[str] | None) -> str:
    return f' ({some(labels, 8)})' if labels else ''
