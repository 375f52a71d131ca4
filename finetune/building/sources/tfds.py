"""Datasets of tensorflow-datasets that lie prepared on this machine; nothing is downloaded."""

import collections
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.building.sources import LabeledImage, Loaded
from finetune.building.sources.labels import label_of
from finetune.console.errors import Error, UsageError
from finetune.console.lazy import LazyModule
from finetune.console.terminal import printable, some
from finetune.pictures import gate
from finetune.records.dataset import BACKGROUND

tensorflow_datasets = LazyModule('tensorflow_datasets')

HELD_OUT = ('validation', 'test')  # Where no split is named: the first of these validates, the second is the test.


def sources(name: str, directory: str, splits: Sequence[str] = ()) -> dict[str, 'PreparedDataset']:
    """The sources of 'train' and, where they are there, of 'validation' and 'test'.

    `splits` are the names that the dataset has for them; an empty one leaves a split out. Raises Error.
    """
    builder = _builder(name, directory)
    found = list(builder.info.splits)
    if splits and not (splits[0] and len(splits) <= 3):
        raise UsageError(f'--tfds_splits={printable(",".join(splits))}: expected TRAIN,VALIDATION,TEST, of which the '
                         'last two may be left out or empty')
    splits = splits or ['train', *(split for split in HELD_OUT if split in found)]
    theirs = {ours: split for ours, split in zip(('train', *HELD_OUT), splits, strict=False) if split}
    for split in theirs.values():
        if split not in found:
            raise Error(f'{name} in {printable(directory)} has no split {printable(split)}; it has {some(found)}. '
                        'Name them with --tfds_splits=TRAIN,VALIDATION,TEST.')
    return {ours: PreparedDataset(builder, name, split) for ours, split in theirs.items()}


def _builder(name: str, directory: str):
    if not importlib.util.find_spec('tensorflow_datasets'):
        raise UsageError("--source=tfds needs a package that is not installed: pip install 'finetune[tfds]'")
    try:
        return tensorflow_datasets.core.read_only_builder.builder_from_files(name, data_dir=directory)
    except tensorflow_datasets.core.registered.DatasetNotFoundError:
        there = sorted(path.name for path in Path(directory).glob('*') if path.is_dir() and path.name != 'downloads')
        raise Error(f'{printable(directory)} holds no prepared dataset {printable(name)}; it holds '
                    f'{some(there) or "none"}. Prepare it with tfds: `tfds build {printable(name)} '
                    f'--data_dir={printable(directory)}`.') from None


class PreparedDataset:
    """One split, read in the order that tensorflow-datasets shuffled it into. A `Source`."""

    skipped = ()

    def __init__(self, builder, name: str, split: str):
        self.where = f'{name} ({split}) in {printable(builder.data_dir)}'
        self.ignored = collections.Counter()
        self._builder, self._split = builder, split
        self._image = _only(builder, tensorflow_datasets.features.Image, 'picture')
        self._label = _only(builder, tensorflow_datasets.features.ClassLabel, 'class label')
        self.labels = (BACKGROUND, *(label_of(name.encode()) for name in builder.info.features[self._label].names))
        lossy = builder.info.features[self._image].encoding_format == 'jpeg'
        self.loader = GateLoader('JPEG' if lossy else 'PNG')
        counts = collections.Counter(self._checked(label, place) for place, (_, label) in enumerate(self._examples()))
        self.per_label = [counts[label] for label in range(len(self.labels))]

    def images(self, seed: int) -> Iterator[LabeledImage]:
        for place, (encoded, label) in enumerate(self._examples()):
            yield LabeledImage(label + 1, f'{self.labels[label + 1]}/{self._split}:{place}'.encode(), encoded)

    def path(self, image: LabeledImage) -> bytes:
        return f'{self._builder.data_dir}/'.encode() + image.filename.partition(b'/')[2]

    def stored_bytes(self) -> int:
        return 0

    def remarks(self) -> Iterator[str]:
        return iter(())

    def _examples(self) -> Iterator[tuple[bytes, int]]:
        """(encoded picture, tensorflow-datasets' label) of each, always in the same order."""
        dataset = self._builder.as_dataset(
            split=self._split, shuffle_files=False,
            decoders={self._image: tensorflow_datasets.decode.SkipDecoding()})
        for example in dataset.as_numpy_iterator():
            yield example[self._image], int(example[self._label])

    def _checked(self, label: int, place: int) -> int:
        if not 0 <= label < len(self.labels) - 1:
            raise Error(f'{self.where}: record {place} has label {label}, expected 0 to {len(self.labels) - 2}. '
                        'Name splits that have labels with --tfds_splits=TRAIN,VALIDATION,TEST.')
        return label + 1


def _only(builder, kind: type, what: str) -> str:
    """The name of the one feature of this kind."""
    names = [name for name, feature in builder.info.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise Error(f'{builder.name} has {len(names)} features of the kind {what}, expected one: it is not a dataset '
                    'of labelled pictures.')
    return names[0]


@dataclass(frozen=True)
class GateLoader:
    """A `Loader` whose keys are the pictures as tensorflow-datasets has them, judged as files are."""

    format: str

    def load(self, key: bytes) -> Loaded:
        picture = gate.admit(key, format=self.format)
        return Loaded(picture.encoded, picture.height, picture.width, picture.digest, picture.notes)
