"""Where a benchmark finds its pictures and weights, where it may write, and the commands that it runs."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

from finetune import records
from tools import split_photos


@dataclasses.dataclass(frozen=True)
class Place:
    photos: Path  # train/CLASS/NAME and validation/CLASS/NAME
    records: Path
    weights: Path
    scratch: Path
    cifar: Path | None = None  # Records.

    @property
    def mobilenet(self) -> Path:
        return self.weights / 'mobilenet_v2_1.0_224_no_top.weights.h5'

    @property
    def inception(self) -> Path:
        return self.weights / 'inception_v3_92of94_no_top.weights.h5'


def prepare(photos: Path | None, weights: Path | None, cifar: Path | None, scratch: Path) -> Place:
    """Splits the photos and builds the records of what there is, unless an earlier benchmark did."""
    split, built, small = scratch / 'photos', scratch / 'records', scratch / 'cifar'
    if cifar and not (small / records.MANIFEST).exists():
        printed_by('finetune', 'build', '--source=cifar10', f'--train_directory={cifar}',
                   f'--validation_directory={cifar}', f'--output_directory={small}')
    if photos and not split.exists():
        unfinished = split.with_name('photos.tmp')
        shutil.rmtree(unfinished, ignore_errors=True)
        split_photos.split(photos, unfinished, validation=100)
        unfinished.rename(split)
    if photos and not (built / records.MANIFEST).exists():
        printed_by('finetune', 'build', f'--train_directory={split}/train',
                   f'--validation_directory={split}/validation', f'--output_directory={built}', '--train_shards=8')
    return Place(split, built, weights, scratch, small)


def printed_by(module: str, *arguments: str) -> str:
    """What `python -m module` prints; its remarks go where ours go."""
    command = [sys.executable, '-m', module, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
