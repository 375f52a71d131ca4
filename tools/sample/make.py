"""Draws picture sets of class folders: flowers for the demo, patterns to train the small backbone.

    python -m tools.sample.make --output=flowers
    python -m tools.sample.make --output=patterns --kind=patterns --train=72 --validation=4

Every picture is a function of (seed, split, class, index) alone: one can be drawn again alone, and the number
of processes changes nothing.
"""
import argparse
import json
import multiprocessing
import sys
import zlib
from pathlib import Path

import numpy as np

from tools.sample.drawing import flowers, patterns

KINDS = {'flowers': flowers, 'patterns': patterns}


def main():
    options = parse_options()
    settings = {key: getattr(options, key) for key in ('kind', 'seed', 'train', 'validation')}
    claim(options.output, settings)
    with multiprocessing.Pool() as pool:
        pool.starmap(write_picture, jobs(options.output, **settings), chunksize=8)
    classes = len(KINDS[options.kind].CLASSES)
    print(f'Drew {classes} classes x ({options.train} train + {options.validation} validation) pictures. '
          f'Next: python -m tools.build_tfrecords --train_directory={options.output}/train '
          f'--validation_directory={options.output}/validation --output_directory=data/{options.kind}')


def parse_options():
    parser = argparse.ArgumentParser(prog='python -m tools.sample.make', description=__doc__.splitlines()[0])
    option = parser.add_argument
    option('--output', type=Path, required=True, help='folder to draw into, new or empty')
    option('--kind', choices=KINDS, default='flowers', help='which set (default: flowers)')
    option('--train', type=int, default=60, help='pictures of each class to train on (default: 60)')
    option('--validation', type=int, default=20, help='pictures of each class to validate on (default: 20)')
    option('--seed', type=int, default=1, help='another seed draws other pictures (default: 1)')
    options = parser.parse_args()
    if min(options.train, options.validation, options.seed) < 0:
        parser.error('--train, --validation and --seed must not be negative')
    return options


def claim(output, settings):
    """Marks a new or empty folder as this sample; exits otherwise, as files already there would join it."""
    mark, mine = output / 'sample.json', json.dumps(settings).encode()
    if mark.is_file() and mark.read_bytes() == mine:
        return  # The same pictures again, such as after an interruption.
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        sys.exit(f'{output} is neither this sample nor an empty folder; name another one with --output.')
    output.mkdir(parents=True, exist_ok=True)
    mark.write_bytes(mine)


def jobs(output, kind, seed, train, validation):
    """Yields (path, kind, seed, split, class, index); a tenth are PNGs, since real folders hold some."""
    for split, count in (('train', train), ('validation', validation)):
        for name in KINDS[kind].CLASSES:
            for index in range(count):
                suffix = 'png' if index % 10 == 9 else 'jpg'
                yield output / split / name / f'{name}-{index:04d}.{suffix}', kind, seed, split, name, index


def write_picture(path, *which):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(*which).save(path, quality=90)


def draw_picture(kind, seed, split, name, index):
    place = zlib.crc32(f'{split}/{name}'.encode())
    return KINDS[kind].draw(name, np.random.default_rng([seed, place, index]))


if __name__ == '__main__':
    try:
        main()
    except OSError as error:
        sys.exit(f'The sample could not be written: {error}.')
