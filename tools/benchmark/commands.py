"""Whole commands, as a user types them."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.training import feeds
from tools.benchmark.networks import prepared, training_step
from tools.benchmark.place import Place, printed_by
from tools.benchmark.turns import in_turn, rate, spread


def build(place: Place) -> Iterator[dict]:
    """The whole build, against a bare loop that reads, decodes and hashes every file on all cores.

    Both sides are commands: the time to start them counts.
    """
    pictures, large = place.photos / 'train', _large_photos(place.scratch / 'large', 50)
    found = in_turn(_pictures_built(pictures, place), _pictures_looped('hash', pictures), turns=3)
    yield {'what': 'build of flowers, against reading, decoding and hashing alone', 'unit': 'pictures/s', 'goal': 1.1,
           **found}
    found = in_turn(_pictures_built(large, place, '--short_side=299'), _pictures_looped('shrink', large), turns=3)
    yield {'what': 'build --short_side=299 of 12-megapixel photos, against decoding fully, shrinking and encoding',
           'unit': 'pictures/s', 'goal': 3.0, **found}


def _pictures_built(pictures: Path, place: Place, *flags: str) -> Callable[[], float]:
    def run() -> int:
        printed_by('finetune', 'build', f'--train_directory={pictures}', '--overwrite',
                   f'--output_directory={place.scratch / "built"}', *flags)
        return len(list(pictures.glob('*/*')))

    return rate(run)


def _pictures_looped(loop: str, pictures: Path) -> Callable[[], float]:
    def run() -> int:
        printed_by('tools.benchmark.bare_loops', loop, str(pictures))
        return len(list(pictures.glob('*/*')))

    return rate(run)


def _large_photos(folder: Path, count: int) -> Path:
    """Drawn photos of 4000 x 3000 pixels with detail at every scale, half of them in each of two classes."""
    random = np.random.default_rng(0)
    for index in range(count):
        path = folder / f'class_{index % 2}' / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        scales = [Image.fromarray(random.integers(0, 256, (3000 // s, 4000 // s, 3), np.uint8)).resize((4000, 3000))
                  for s in (500, 50, 10)]
        Image.blend(Image.blend(scales[0], scales[1], 0.4), scales[2], 0.2).save(path, quality=90)
    return folder


def cold(place: Place) -> Iterator[dict]:
    """From records to an evaluated Inception-v3, without and with kept features, against 2000 steps of everything.

    Of those, four are measured.
    """
    kept = place.scratch / 'cold_features'
    shutil.rmtree(kept, ignore_errors=True)
    flags = (f'--data_dir={place.records}', '--model=inception_v3', f'--pretrained={place.inception}', '--fine_tune')
    head_flags = (*flags, '--freeze_backbone', '--feature_layers=mixed8,mixed9', f'--feature_dir={kept}')

    def train_head(seed: int) -> tuple[float, float]:
        directory = place.scratch / f'cold_run_{seed}'
        shutil.rmtree(directory, ignore_errors=True)
        started = time.monotonic()
        told = printed_by('finetune', 'train', *head_flags, f'--train_dir={directory}', f'--seed={seed}')
        return time.monotonic() - started, _precision(told)

    seconds, precision = train_head(1)
    started = time.monotonic()
    printed_by('finetune', 'eval', f'--checkpoint_dir={place.scratch}/cold_run_1', f'--data_dir={place.records}',
               '--run_once')
    seconds += time.monotonic() - started
    recipe, model, data = prepared(place, *flags[1:3])
    update = training_step(recipe, model, data, model)
    pictures = iter(feeds.of_pictures(model, recipe, data, None).training(0))

    def a_step() -> int:
        float(update(next(pictures)))
        return 1

    a_step()
    theirs = 2000 / np.mean([rate(a_step)() for _ in range(4)])
    yield {'what': 'inception_v3 from records to evaluated, cold, against 2000 steps of 32 of everything',
           'unit': 'seconds', 'goal': 60.0, 'n': 1, 'ours': spread(np.array([seconds])),
           'theirs': spread(np.array([theirs])), 'ratio': spread(np.array([theirs / seconds])),
           'precision_at_1': precision}
    warm, precision = zip(*(train_head(seed) for seed in (2, 3)), strict=True)
    yield {'what': 'another seed from kept features, command to numbers', 'unit': 'seconds', 'goal': 20.0, 'n': 2,
           'ours': spread(np.array(warm)), 'precision_at_1': precision}


def stock_keras(place: Place) -> Iterator[dict]:
    """Wall clock from photos to the precision@1 that we reach, against the peer's on the same weights and split.

    Our part includes `finetune build`. We look at the central 0.875 of each side, the peer at the whole picture.
    """
    printed = printed_by('tools.benchmark.stock_keras', str(place.photos), str(place.mobilenet))
    theirs = json.loads(printed.splitlines()[-1])
    shutil.rmtree(place.scratch / 'peer_features', ignore_errors=True)
    shutil.rmtree(place.scratch / 'peer_run', ignore_errors=True)
    started = time.monotonic()
    built = place.scratch / 'peer_records'
    printed_by('finetune', 'build', f'--train_directory={place.photos}/train', f'--output_directory={built}',
               f'--validation_directory={place.photos}/validation', '--overwrite')
    answered = printed_by(
        'finetune', 'train', f'--data_dir={built}', f'--train_dir={place.scratch / "peer_run"}',
        f'--pretrained={place.mobilenet}', '--fine_tune', '--freeze_backbone',
        f'--feature_dir={place.scratch / "peer_features"}')
    seconds, precision = time.monotonic() - started, _precision(answered)
    reached = next((epoch['seconds'] for epoch in theirs['epochs'] if epoch['accuracy'] >= precision), None)
    yield {'what': 'mobilenet_v2 head, wall clock to the precision@1 that we reach, against stock Keras',
           'unit': 'seconds', 'goal': 4.0, 'n': 1, 'precision_at_1': precision, 'ours': spread(np.array([seconds])),
           'theirs': spread(np.array([reached or theirs['epochs'][-1]['seconds']])),
           'ratio': spread(np.array([(reached or theirs['epochs'][-1]['seconds']) / seconds])),
           'theirs_reached_it': reached is not None, 'peer': theirs}


NEW_PHOTOS = 50


def project(place: Place) -> Iterator[dict]:
    """`finetune PHOTOS --effort=quick` from a folder to a report: cold, typed again, and with new photos in a class."""
    photos, held_back, made = (place.scratch / f'project_{name}' for name in ('photos', 'held_back', 'made'))
    for directory in (photos, held_back, made):
        shutil.rmtree(directory, ignore_errors=True)
    for split in ('train', 'validation'):
        for folder in (place.photos / split).iterdir():
            shutil.copytree(folder, photos / folder.name, dirs_exist_ok=True)
    held_back.mkdir()
    folder = min(photos.iterdir())
    for path in sorted(folder.iterdir())[:NEW_PHOTOS]:
        shutil.move(path, held_back / path.name)

    def seconds() -> float:
        started = time.monotonic()
        printed_by('finetune', photos, f'--output={made}', '--effort=quick', f'--pretrained={place.mobilenet}')
        return time.monotonic() - started

    count = len(list(photos.glob('*/*')))
    yield _seconds(f'a folder of {count} photos to a report, the head alone, cold', seconds(), 100)
    yield _seconds('typed again', seconds(), 8)
    for path in held_back.iterdir():
        shutil.move(path, folder / path.name)
    yield _seconds(f'with {NEW_PHOTOS} new photos in a class', seconds(), 30)


def _seconds(what: str, seconds: float, goal: float) -> dict:
    return {'what': what, 'unit': 'seconds', 'goal': goal, 'n': 1, 'ours': spread(np.array([seconds]))}


def _precision(printed: str) -> float:
    return float(re.findall(r'precision @ 1 = (\d\.\d+)', printed)[-1])
