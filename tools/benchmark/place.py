"""Where a benchmark finds its pictures and weights, where it may write, and the commands that it runs."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune.records import dataset
from tools import split_photos


@dataclasses.dataclass(frozen=True)
class Place:
    photos: Path  # train/CLASS/NAME and validation/CLASS/NAME
    records: Path
    weights: Path
    scratch: Path
    cifar: Path | None = None  # Records.
    mnist: Path | None = None  # Records.

    @property
    def mobilenet(self) -> Path:
        return self.weights / 'mobilenet_v2_1.0_224_no_top.weights.h5'

    @property
    def inception(self) -> Path:
        return self.weights / 'inception_v3_92of94_no_top.weights.h5'


def prepare(
    photos: Path | None, weights: Path | None, cifar: Path | None, mnist: Path | None, scratch: Path
) -> Place:
    """Splits the photos and builds the records of what there is, unless an earlier benchmark did of the same files."""
    split, built = (scratch / f'{name}_{_listed(photos)}' for name in ('photos', 'records'))
    small = [_small(source, folder, scratch) for source, folder in (('cifar10', cifar), ('mnist_csv', mnist))]
    if photos and not split.exists():
        unfinished = split.with_name(f'{split.name}.tmp')
        shutil.rmtree(unfinished, ignore_errors=True)
        split_photos.split(photos, unfinished, validation=100)
        unfinished.rename(split)
    if photos and not (built / dataset.MANIFEST).exists():
        printed_by('finetune', 'build', f'--train_directory={split}/train',
                   f'--validation_directory={split}/validation', f'--output_directory={built}', '--train_shards=8')
    return Place(split, built, weights, scratch, *small)


def _small(source: str, folder: Path | None, scratch: Path) -> Path | None:
    """Records of pictures that come in files of many."""
    if not folder:
        return None
    name = {'cifar10': 'cifar', 'mnist_csv': 'mnist'}[source]
    records = scratch / f'{name}_{_listed(folder)}'
    if not (records / dataset.MANIFEST).exists():
        printed_by('finetune', 'build', f'--source={source}', f'--train_directory={folder}',
                   f'--validation_directory={folder}', f'--output_directory={records}')
    return records


def _listed(folder: Path | None) -> str:
    """A hash of the names and sizes of all files."""
    files = sorted(path for path in folder.rglob('*') if path.is_file()) if folder else []
    listing = '\n'.join(f'{path.relative_to(folder)} {path.stat().st_size}' for path in files)
    return hashlib.sha256(listing.encode(errors='surrogateescape')).hexdigest()[:8]


def printed_by(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What `python -m module` prints, with `environment` beside ours; its remarks go where ours go."""
    command = [sys.executable, '-m', module, *map(str, arguments)]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables).stdout
