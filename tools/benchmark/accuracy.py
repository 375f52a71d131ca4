"""How good `finetune PHOTOS` is, and in which time: on three splits of the photos, with three seeds each.

Two splits differ more than two seeds do, so that one split decides nothing.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools import split_photos
from tools.benchmark.place import Place, printed_by
from tools.benchmark.turns import spread

DRAWS = (0, 1, 2)  # The first is the split of the README.
SEEDS = (1, 2, 3)
WITHIN = {'quick': 60, 'good': 240}  # Seconds,
AT_LEAST = {'quick': 0.930, 'good': 0.950}  # precision@1.
RUN = {'quick': 'head', 'good': 'last_blocks'}  # What each effort adds.


def accuracy(place: Place) -> Iterator[dict]:
    """Cold, from photos to a report, with the weights that --pretrained=imagenet means here."""
    found = {effort: [] for effort in RUN}
    splits = [_split(place, draw) for draw in DRAWS]
    for seed in SEEDS:  # Outside: were it stopped, what it told so far is of all splits.
        for draw, photos in zip(DRAWS, splits, strict=True):
            for effort, result in _trained(photos, place.scratch / 'accuracy', seed).items():
                found[effort].append(result)
                print(f'split {draw}, seed {seed}, {effort}: {result[0]:.4f} in {result[1]:.0f} s', file=sys.stderr)
    for effort, results in found.items():
        precision, seconds = np.array(results).T
        of_draws = precision.reshape(len(SEEDS), len(DRAWS)).mean(axis=0)
        of = f'--effort={effort}, {len(DRAWS)} splits with {len(SEEDS)} seeds'
        yield {'what': f'precision@1; {of}', 'unit': 'share', 'n': len(results), 'ours': spread(precision),
               'goal': AT_LEAST[effort], 'of each split': of_draws.round(4).tolist()}
        yield {'what': f'from photos to a report; {of}', 'unit': 'seconds', 'n': len(results), 'ours': spread(seconds),
               'goal': WITHIN[effort]}


def _split(place: Place, draw: int) -> Path:
    """All photos, 100 of each class to validate."""
    everything, split = (place.scratch / f'{name}_of_draw_{draw}' for name in ('photos', 'split'))
    for directory in (everything, split):
        shutil.rmtree(directory, ignore_errors=True)
    for folder in place.photos.glob('*/*'):
        for photo in folder.iterdir():
            link = everything / folder.name / photo.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo.resolve())
    split_photos.split(everything, split, validation=100, draw=draw)
    return split


def _trained(photos: Path, project: Path, seed: int) -> dict[str, tuple[float, float]]:
    """(precision@1 of what each effort trains, seconds from nothing), one after the other in one project."""
    shutil.rmtree(project, ignore_errors=True)
    results, started = {}, time.monotonic()
    for effort, run in RUN.items():
        printed_by('finetune', str(photos), f'--output={project}', f'--effort={effort}', f'--seed={seed}')
        scores = json.loads((project / run / 'eval' / 'validation' / 'metrics.json').read_text())
        results[effort] = scores['figures']['precision@1'], time.monotonic() - started
    return results
