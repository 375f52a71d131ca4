"""Splits class folders by content: of each class the pictures with the lowest sha256 validate, the others train.

    python -m tools.split_photos --photos=flower_photos --validation=100 --output=flower_split

The output holds links: train/CLASS/NAME and validation/CLASS/NAME. Which pictures validate hangs on nothing but the
pictures, so that figures of two machines are about the same ones.
"""

import argparse
import hashlib
import itertools
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(prog='python -m tools.split_photos', description=__doc__.splitlines()[0])
    parser.add_argument('--photos', type=Path, required=True, help='folder of class folders')
    parser.add_argument('--validation', type=int, default=100, help='validation pictures of each class (default: 100)')
    parser.add_argument('--output', type=Path, required=True, help='new folder for the links')
    options = parser.parse_args()
    if not options.photos.is_dir():
        parser.error(f'--photos={options.photos} is no folder')
    if options.output.exists():
        parser.error(f'--output={options.output} is there already; name a new folder')
    counts = split(options.photos, options.output, options.validation)
    print(f'{options.output}: {counts["train"]} pictures to train, {counts["validation"]} to validate')


def split(photos: Path, output: Path, validation: int, draw: int = 0) -> dict[str, int]:
    """Links every picture of every class folder into one of the two splits; returns how many each got.

    Each `draw` but 0, the usual one, takes others, as if at random.
    """
    counts = {'train': 0, 'validation': 0}
    folders = sorted(path for path in photos.iterdir() if path.is_dir() and not path.name.startswith('.'))
    classes = [_by_content(folder, draw) for folder in folders]
    for folder, files in zip(folders, classes, strict=True):  # All before the first link: no half of a split is left.
        if len(files) <= validation:
            sys.exit(f'{folder} has {len(files)} pictures: none would be left to train on. Lower --validation.')
    for place, path in itertools.chain(*map(enumerate, classes)):
        name = 'validation' if place < validation else 'train'
        link = output / name / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
        counts[name] += 1
    return counts


def _by_content(folder: Path, draw: int) -> list[Path]:
    salt = str(draw).encode() if draw else b''
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith('.')]
    return sorted(files, key=lambda path: hashlib.sha256(salt + path.read_bytes()).digest())


if __name__ == '__main__':
    main()
