"""Measures what the project promises, each figure beside what it is compared with.

    python -m tools.benchmark all --photos=flower_photos --weights=WEIGHTS > benchmarks.jsonl
    python -m tools.benchmark input eval --photos=flower_photos --weights=WEIGHTS
    python -m tools.benchmark classics --cifar=cifar-10-batches-bin
    python -m tools.benchmark growth
    python -m tools.benchmark trust --photos=flower_photos --weights=WEIGHTS --cifar=cifar-10-batches-bin --mnist=mnist
    python -m tools.benchmark table < benchmarks.jsonl

One JSON object a line: what, unit, ours and theirs (mean, std), ratio (mean, std), n, goal, machine, versions. The two
sides take turns within one process after one turn each that does not count, so that a busy machine slows both.
`--photos` is a folder of class folders (flower_photos: 3670 pictures of 5 classes); WEIGHTS holds
mobilenet_v2_1.0_224_no_top.weights.h5 and inception_v3_92of94_no_top.weights.h5; `--cifar` is the binary CIFAR-10;
`--mnist` a folder of its CSV files; for `trust` both are pictures of other things.
`all` is everything that the folders given suffice for.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from finetune.console import machine
from tools.benchmark import accuracy, checking, classics, commands, growth, kernels, networks, place, serving, trust

BENCHMARKS = {each.__name__: each for each in (
    networks.input, networks.step, networks.blocks, networks.features, networks.eval, networks.head,
    commands.build, commands.project, commands.cold, commands.stock_keras, growth.growth, classics.classics,
    checking.check, accuracy.accuracy, kernels.kernels, serving.serving, trust.trust, trust.trust_of_blocks)}
OF_CIFAR = ('classics',)
OF_DRAWN = ('growth',)  # It draws its pictures.
COLUMNS = ('benchmark', 'what', 'unit', 'ours', 'theirs', 'ratio', 'n', 'goal')


def table(lines: Iterable[str]) -> str:
    """The measurements as rows of Markdown."""
    found = [[_cell(each.get(name, '')) for name in COLUMNS] for each in map(json.loads, lines)]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (COLUMNS, ['---'] * len(COLUMNS), *found))


def _cell(value) -> str:
    if isinstance(value, dict) and 'mean' in value:
        return f'{value["mean"]:.4g} ± {value["std"]:.2g}' if value['std'] else f'{value["mean"]:.4g}'
    if isinstance(value, list):
        return '; '.join(map(_cell, value))
    if isinstance(value, dict):
        return ', '.join(f'{name} {number:g}' for name, number in value.items())
    return f'{value:g}' if isinstance(value, float) else str(value)


def main() -> None:
    if sys.argv[1:] == ['table']:
        print(table(sys.stdin))
        return
    parser = argparse.ArgumentParser(prog='python -m tools.benchmark', description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='+', choices=[*BENCHMARKS, 'all'], help='which')
    parser.add_argument('--photos', type=Path, help='folder of class folders')
    parser.add_argument('--weights', type=Path, help='folder of the two weight files')
    parser.add_argument('--cifar', type=Path, help='folder of the binary CIFAR-10')
    parser.add_argument('--mnist', type=Path, help='folder of mnist_train.csv.gz and mnist_test.csv.gz')
    parser.add_argument('--scratch', type=Path, default=Path('data/benchmark'), help='may be deleted afterwards')
    options = parser.parse_args()
    possible = [name for name in BENCHMARKS
                if name in OF_DRAWN or (options.cifar if name in OF_CIFAR else options.photos and options.weights)]
    names = possible if 'all' in options.names else options.names
    if not names or not set(names) <= set(possible):
        parser.error('classics needs --cifar, all others but growth need --photos and --weights')
    measured_at = place.prepare(options.photos, options.weights, options.cifar, options.mnist, options.scratch)
    for name in names:
        for found in BENCHMARKS[name](measured_at):
            facts = {'benchmark': name, **found, 'machine': machine.describe(), 'versions': machine.versions()}
            print(json.dumps(facts), flush=True)


if __name__ == '__main__':
    main()
