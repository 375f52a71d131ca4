"""How time and memory grow with pictures and classes, and how fast a place in the middle of an epoch is found."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.records import batches, dataset
from tools.benchmark.place import Place

COUNTS = (2_000, 20_000, 100_000)
HEAD = ('--pretrained=sample', '--fine_tune', '--freeze_backbone')


def growth(place: Place) -> Iterator[dict]:
    """No side to compare with: the goals are those of the machine that docs/scale.md names."""
    yield from _with_pictures(place)
    for count, classes in ((5_014, 1000), (100_000, 1000), (30_000, 10_000)):
        _build(place, count, classes)
    yield from _heads(place)
    yield from _evaluations(place)
    yield from _reading(place)


def _with_pictures(place: Place) -> Iterator[dict]:
    """Seconds for 1,000 more pictures, and peak memory, in five classes, half of the pictures to validate."""
    found = {}
    for count in COUNTS:
        built = _build(place, count, 5, validation_percent=50)
        data, run = _flags(place, count, 5)
        found[count] = {'build': built, 'features': _measured('train', data, f'--train_dir={run}', *HEAD),
                        'eval': _measured('eval', data, f'--checkpoint_dir={run}', '--run_once')}
    few, more, most = COUNTS
    for verb in ('build', 'features', 'eval'):
        (seconds, memory), (more_seconds, _), (most_seconds, most_memory) = (found[count][verb] for count in COUNTS)
        at_first = 1000 * (more_seconds - seconds) / (more - few)
        later = 1000 * (most_seconds - more_seconds) / (most - more)
        yield {'what': f'{verb} of drawn pictures: 1,000 more than {more:,}, against 1,000 more than {few:,}; peak '
                       f'memory of {most:,}, against {few:,}', 'n': 1, 'unit': 'seconds and MB',
               'ours': [round(later, 3), most_memory], 'theirs': [round(at_first, 3), memory],
               'ratio': {'time': round(later / at_first, 2), 'memory': round(most_memory / memory, 2)},
               'goal': {'time': 1.1, 'memory': 1.2}}


def _heads(place: Place) -> Iterator[dict]:
    """Solved for, once a training of one step has kept the features."""
    for count, classes, goal in ((5_014, 1000, {'time': 20}), (100_000, 1000, {'time': 300})):
        data, run = _flags(place, count, classes)
        _measured('train', data, f'--train_dir={run}_of_a_step', *HEAD, '--max_steps=1')
        cost = _measured('train', data, f'--train_dir={run}', *HEAD)
        yield {'what': f'a head of {classes} classes for {_records(place, count, classes, "train")} drawn pictures, '
                       'features kept', 'n': 1, 'unit': 'seconds and MB', 'ours': list(cost), 'goal': goal}


def _evaluations(place: Place) -> Iterator[dict]:
    data, run = _flags(place, 30_000, 10_000)
    _measured('train', data, f'--train_dir={run}', *HEAD, '--max_steps=20')
    for count, classes, subset, goal in ((100_000, 1000, 'train', {'memory': 1000}),
                                         (30_000, 10_000, 'validation', {'time': 12, 'memory': 1200})):
        data, run = _flags(place, count, classes)
        cost = _measured('eval', data, f'--checkpoint_dir={run}', '--run_once', f'--subset={subset}')
        yield {'what': f'eval of {_records(place, count, classes, subset)} drawn pictures of {classes} classes', 'n': 1,
               'unit': 'seconds and MB', 'ours': list(cost), 'goal': goal}


def _reading(place: Place) -> Iterator[dict]:
    """What a training reads before it decodes anything."""
    records = dataset.open_records(_paths(place, 100_000, 1000)[0])
    counted, paths = records.split('train'), records.paths('train')
    count = counted.records

    def order_from(first: int) -> float:
        """Seconds to the first record from there, or to the end of the epoch from its beginning."""
        started = time.monotonic()
        order = batches._epoch(counted, paths, 0, 0, first)
        (order if first == 0 else order.take(1)).reduce(0, lambda seen, _: seen + 1).numpy()
        return time.monotonic() - started

    order_from(1)
    yield {'what': f'the order of an epoch of {count} records', 'n': 1, 'unit': 'records/s',
           'ours': round(count / order_from(0)), 'goal': 100_000}
    yield {'what': f'going on from record {count - 1000} of an epoch', 'n': 1, 'unit': 'seconds',
           'ours': round(order_from(count - 1000), 3), 'goal': 0.3}


def _paths(place: Place, count: int, classes: int) -> tuple[Path, Path]:
    """Of records and run."""
    return tuple(place.scratch / f'{what}_{count}_in_{classes}' for what in ('records', 'run'))


def _flags(place: Place, count: int, classes: int) -> tuple[str, Path]:
    """--data_dir of the records, and where the run lies."""
    records, run = _paths(place, count, classes)
    return f'--data_dir={records}', run


def _records(place: Place, count: int, classes: int, split: str) -> int:
    return dataset.open_records(_paths(place, count, classes)[0]).split(split).records


def _build(place: Place, count: int, classes: int, validation_percent: int = 20) -> tuple[float, float]:
    """Draws the pictures, which is not measured, and builds records of them."""
    pictures = _drawn(place.scratch / f'pictures_{count}_in_{classes}', count, classes)
    for path in _paths(place, count, classes):
        shutil.rmtree(path, ignore_errors=True)
    return _measured('build', f'--train_directory={pictures}', f'--validation_percent={validation_percent}',
                     f'--output_directory={_paths(place, count, classes)[0]}')


def _drawn(folder: Path, count: int, classes: int) -> Path:
    """Blots of 64 x 64 pixels: half of each is its class, half chance."""
    random = np.random.default_rng(0)
    of_class = random.integers(0, 128, (classes, 4, 4, 3))
    for index in range(count):
        path = folder / f'{index % classes:05}' / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            blots = of_class[index % classes] + random.integers(0, 128, (4, 4, 3))
            Image.fromarray(blots.astype(np.uint8)).resize((64, 64)).save(path)
    return folder


def _measured(*command: str) -> tuple[float, float]:
    """(seconds, peak memory in MB) of `finetune …`: of its largest process."""
    code = ('import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2, stderr=2);'
            'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)')
    started = time.monotonic()
    done = subprocess.run([sys.executable, '-c', code, sys.executable, '-m', 'finetune', *command], check=True,
                          stdout=subprocess.PIPE, text=True)
    return round(time.monotonic() - started, 1), round(int(done.stdout) / 1024)
