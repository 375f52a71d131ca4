"""Weight files as arrays: the `.weights.h5` of Keras 3 and the older `.h5` of keras.applications.

A file is data here, never a program: no model is deserialised, links and data stored elsewhere are refused, and a
checksum beside the file (`FILE.sha256`) is checked before anything else.
"""

import dataclasses
import hashlib
import math
import re
import stat
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from finetune.console.errors import Error
from finetune.console.lazy import LazyModule
from finetune.console.terminal import printable

h5py = LazyModule('h5py', needs_tensorflow=False)

MAX_BYTES = 4 * 2**30
MOST_INFLATED = 2  # Times the file's size; gzip made those that we have seen at most a fifth smaller.
MOST_DEEP = 32  # Groups in each other. Those of one model inside another are five.
HDF5_MAGIC = b'\x89HDF\r\n\x1a\n'


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays by layer; those of a model inside the model are called MODEL/LAYER.

    `numbered`: a layer is called `conv2d_3`, the fourth of its class (Keras 3), not by its name.
    """

    layers: dict[str, list[np.ndarray]]
    numbered: bool

    def match(self, layers: list) -> tuple[list[str | None], list[str]]:
        """What this file calls each of a model's layers (those with weights), and the names that are left over.

        They are looked for in the model that the file is of, and in those inside it: where most of them fit.
        """
        weighty = [layer for layer in layers if layer.weights]

        def agreement(keys: list[str | None]) -> tuple[int, int]:
            fitting = sum(fit(self.layers.get(key, []), layer) for key, layer in zip(keys, weighty, strict=True))
            return fitting, len(keys) - keys.count(None)

        found = max((self._keys(layers, model) for model in self._models()), key=agreement)  # Of equals, the outermost.
        return found, [key for key in self.layers if key not in found]

    def _models(self) -> list[str]:
        """What the names of layers begin with: nothing, or the models that they are in."""
        models = {name[:place + 1] for name in self.layers for place, character in enumerate(name) if character == '/'}
        return sorted({'', *models}, key=lambda model: (len(model), model))

    def _keys(self, layers: list, model: str) -> list[str | None]:
        """Old files name some layers by counters of the process that wrote them; where most names are unknown, their
        order decides, as it did when they were written.
        """
        keys = self._numbers(layers) if self.numbered else [layer.name for layer in layers]
        keys = [model + key for key, layer in zip(keys, layers, strict=True) if layer.weights]
        if not self.numbered and 2 * sum(key in self.layers for key in keys) < len(keys):
            inside = [name for name in self.layers if name.startswith(model)]
            keys = [*inside, *[None] * len(keys)][:len(keys)]
        return [key if key in self.layers else None for key in keys]

    @staticmethod
    def _numbers(layers: list) -> list[str]:
        seen: Counter[str] = Counter()
        keys = []
        for layer in layers:
            kind = snake_case(type(layer).__name__)
            keys.append(f'{kind}_{seen[kind]}' if seen[kind] else kind)
            seen[kind] += 1
        return keys


def fit(arrays: list[np.ndarray], layer) -> bool:
    return [array.shape for array in arrays] == [tuple(weight.shape) for weight in layer.weights]


def snake_case(name: str) -> str:
    """DepthwiseConv2D -> depthwise_conv2d, as Keras writes class names into its files."""
    name = re.sub(r'\W+', '', name)
    name = re.sub('(.)([A-Z][a-z]+)', r'\1_\2', name)
    return re.sub('([a-z])([A-Z])', r'\1_\2', name).lower()


def of_model(model) -> Weights:
    return Weights({layer.name: layer.get_weights() for layer in model.layers if layer.weights}, numbered=False)


def read(path: Path) -> Weights:
    """Raises `Error` when the file is missing, damaged, too big, or not a weight file."""
    _check_file(path)
    try:
        with h5py.File(path, 'r') as file:
            numbered = 'layers' in file
            datasets = _numbered_layers(file, path) if numbered else _named_layers(file, path)
            _check_room(datasets, path)
            weights = Weights({name: list(map(_array, found)) for name, found in datasets.items()}, numbered)
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, zlib.error) as error:
        raise Error(f'{printable(path)} cannot be read as a weight file ({printable(str(error))}). '
                    'It is damaged or cut short: fetch it again.') from None
    _check_finite(weights, path)
    return weights


def write_checksum(path: Path) -> None:
    _checksum_beside(path).write_text(f'{_digest(path)}  {path.name}\n')


def _check_file(path: Path) -> None:
    shown = printable(path)
    if not path.exists():
        raise Error(f'--pretrained={shown} does not exist. '
                    'It takes a run directory, a weights file, imagenet or sample.')
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Error(f'--pretrained={shown} is neither a run directory nor a weights file. '
                    'A SavedModel or an archive cannot be used: give a .weights.h5 or .h5 file.')
    if status.st_size > MAX_BYTES:
        raise Error(f'{shown} has {status.st_size} bytes; weight files of more than {MAX_BYTES} are refused.')
    with path.open('rb') as file:
        if file.read(8) != HDF5_MAGIC:
            raise Error(f'{shown} is not an HDF5 weight file. Give a .weights.h5 or .h5 file as Keras writes them; '
                        '.keras, .pkl, .pt and .pb files are not read, because they can run programs.')
    checksum = _checksum_beside(path)
    if checksum.exists() and _written_in(checksum) != _digest(path).encode():
        raise Error(f'{shown}: its sha256 differs from {printable(checksum.name)}: '
                    'it was damaged or changed since it was written.')


def _checksum_beside(path: Path) -> Path:
    return path.with_name(path.name + '.sha256')


def _written_in(checksum: Path) -> bytes:
    """The first word, if it is a file: nothing is waited for, and no more is read than a digest has."""
    if not checksum.is_file():
        return b''
    with checksum.open('rb') as file:
        return file.read(64)


def _digest(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _numbered_layers(file, path: Path, model: str = '') -> dict[str, list]:
    """Keras 3: layers/NAME/vars/0, 1, …, and the same again in layers/NAME where that is a model."""
    layers = {}
    for name in _group(file, f'{model}layers', path):
        place = f'{model}layers/{name}'
        parts = _group(file, place, path)
        if 'layers' in parts:
            _check_depth(place, path)
            inner = _numbered_layers(file, path, f'{place}/')
            layers |= {f'{name}/{layer}': datasets for layer, datasets in inner.items()}
        variables = _group(file, f'{place}/vars', path) if 'vars' in parts else []
        if len(variables):
            layers[name] = [_dataset(file, f'{place}/vars/{i}', path) for i in range(len(variables))]
    return layers


def _named_layers(file, path: Path) -> dict[str, list]:
    """Keras 2: attributes list the layers and each layer's arrays, in order. A model inside is one layer there, with
    the arrays LAYER/ARRAY of all of its own.
    """
    root = 'model_weights/' if 'model_weights' in file else ''
    group = _group(file, root, path)
    if 'layer_names' not in group.attrs:
        raise Error(f'{printable(path)} is an HDF5 file, but not a Keras weight file: it has no layers. '
                    'Of a model of your own class, save the backbone alone: '
                    'model.backbone.save_weights("backbone.weights.h5").')
    layers = {}
    for name in map(_text, group.attrs['layer_names']):
        owned = {}
        for array in map(_text, _group(file, f'{root}{name}', path).attrs['weight_names']):
            _check_depth(f'{name}/{array}', path)
            owned.setdefault(array.rpartition('/')[0], []).append(_dataset(file, f'{root}{name}/{array}', path))
        for owner, datasets in owned.items():
            layers[name if len(owned) == 1 else f'{name}/{owner}'] = datasets
    return layers


def _check_depth(name: str, path: Path) -> None:
    """What is found in a group costs a walk from the top, and every group is a place to look for the backbone in."""
    if name.count('/') >= MOST_DEEP:
        raise Error(f'{printable(path)} has groups more than {MOST_DEEP} deep in each other; such files are refused.')


def _get(file, name: str, path: Path):
    """A group or array by its path inside the file. No part of the path may lead out of the file."""
    item = file
    for part in filter(None, name.split('/')):
        if not (isinstance(item, h5py.Group) and isinstance(item.get(part, getlink=True), h5py.HardLink)):
            raise Error(f'{printable(path)}: {printable(name)} is missing or a link to somewhere else; '
                        'such files are refused.')
        item = item[part]
    return item


def _group(file, name: str, path: Path):
    group = _get(file, name, path)
    if not isinstance(group, h5py.Group):
        raise Error(f'{printable(path)}: {printable(name)} is an array or a type where Keras has a group; refused.')
    if h5py.h5o.get_info(group.id).rc > 1:
        raise Error(f'{printable(path)}: {printable(name)} is reached by several names; such files are refused.')
    return group


def _dataset(file, name: str, path: Path):
    """An array of the file that is still to be read."""
    dataset = _get(file, name, path)
    elsewhere = not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual
    if elsewhere or dataset.dtype.kind not in 'fiu' or dataset.shape is None:
        raise Error(f'{printable(path)}: {printable(name)} is not a plain array of numbers; refused.')
    return dataset


def _check_room(layers: dict[str, list], path: Path) -> None:
    """Weights hardly shrink: arrays that take far more bytes than the file has would only fill the memory."""
    datasets, size = [dataset for found in layers.values() for dataset in found], path.stat().st_size
    needed = sum(map(_bytes_to_read, datasets))
    if needed > MOST_INFLATED * size:
        raise Error(f'{printable(path)} has {size} bytes and claims arrays of {needed}; such files are refused. '
                    'If it was compressed, save it again without compression.')
    if not all(map(_inflates_as_told, datasets)):
        raise Error(f'{printable(path)} holds arrays that are compressed in a way that is refused; '
                    'save it again without compression.')


def _bytes_to_read(dataset) -> int:
    """HDF5 reads whole chunks, however little of them is in the array."""
    if not dataset.chunks:
        return dataset.nbytes
    lengths = (-(-length // chunk) * chunk for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return math.prod(lengths) * dataset.dtype.itemsize


def _inflates_as_told(dataset) -> bool:
    """Not compressed, or by gzip alone and to no more than its chunks have: HDF5 inflates first and looks then."""
    kept = dataset.id.get_create_plist()
    filters = [kept.get_filter(number)[0] for number in range(kept.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_DEFLATE]):
        return False
    room = math.prod(dataset.chunks) * dataset.dtype.itemsize if filters else 0
    return all(_inflates_within(room, dataset, part) for part in (dataset.iter_chunks() if filters else ()))


def _inflates_within(room: int, dataset, part: tuple[slice, ...]) -> bool:
    mask, compressed = dataset.id.read_direct_chunk(tuple(place.start for place in part))
    return bool(mask) or len(zlib.decompressobj().decompress(compressed, room + 1)) <= room


def _array(dataset) -> np.ndarray:
    array = dataset[()]
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _check_finite(weights: Weights, path: Path) -> None:
    for name, arrays in weights.layers.items():
        for array in arrays:
            if array.dtype.kind == 'f' and not np.isfinite(array).all():
                raise Error(f'{printable(path)}: the weights of {printable(name)} are not finite numbers; '
                            'the training that wrote them had diverged.')


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
