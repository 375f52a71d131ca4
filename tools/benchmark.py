"""Measures what the project promises, each figure beside what it is compared with.

    python -m tools.benchmark all --photos=flower_photos --weights=WEIGHTS > benchmarks.jsonl
    python -m tools.benchmark input eval --photos=flower_photos --weights=WEIGHTS
    python -m tools.benchmark table < benchmarks.jsonl

One JSON object a line: what, unit, ours and theirs (mean, std), ratio (mean, std), n, goal, machine, versions. The two
sides take turns within one process after one turn each that does not count, so that a busy machine slows both.
`--photos` is a folder of class folders (flower_photos: 3670 pictures of 5 classes); WEIGHTS holds
mobilenet_v2_1.0_224_no_top.weights.h5 and inception_v3_92of94_no_top.weights.h5.
"""

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from finetune import batches, engines, feeds, images, inference, machine, pretrained, records, regression, runs, train
from finetune import recipe as recipes
from finetune.lazy import keras, tf
from finetune.models import zoo
from tools import split_photos

BATCH = 32
BUFFERED = 4  # Batches that a pipeline may have ready.


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a benchmark finds its pictures and weights, and where it may write."""

    photos: Path  # train/CLASS/NAME and validation/CLASS/NAME
    records: Path
    weights: Path
    scratch: Path

    @property
    def mobilenet(self) -> Path:
        return self.weights / 'mobilenet_v2_1.0_224_no_top.weights.h5'

    @property
    def inception(self) -> Path:
        return self.weights / 'inception_v3_92of94_no_top.weights.h5'


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> dict:
    """Both sides return how much they did in a second; a ratio above 1 speaks for us."""
    ours(), theirs()
    pairs = np.array([(ours(), theirs()) for _ in range(turns)])
    return {'n': turns, 'ours': _spread(pairs[:, 0]), 'theirs': _spread(pairs[:, 1]),
            'ratio': _spread(pairs[:, 0] / pairs[:, 1])}


def _spread(values: np.ndarray) -> dict:
    return {'mean': round(float(np.mean(values)), 4), 'std': round(float(np.std(values)), 4)}


def rate(work: Callable[[], int]) -> Callable[[], float]:
    """A function that does the work and returns how much of it was done in a second."""
    def done_in_a_second() -> float:
        started = time.monotonic()
        done = work()
        return done / (time.monotonic() - started)

    return done_in_a_second


def classifier(place: Place, *flags: str):
    """(recipe, model with pretrained weights, records) as `finetune train` with these flags would have them."""
    data = records.open_records(place.records)
    given = train.FLAGS.parse([f'--data_dir={place.records}', '--fine_tune', *flags])
    typed = {name: getattr(given, name) for name in recipes.FIELDS if name in given.given}
    recipe = recipes.plan(typed, None, data.split('train').records)
    model = runs.build_model(recipe, len(data.labels))
    pretrained.restore(model, pretrained.read(recipe), data.labels, fine_tune=True)
    return recipe, model, data


# What runs while a network trains -------------------------------------------------------------------------------------


def input(place: Place) -> Iterator[dict]:
    """Reading, decoding, distorting and batching, against bare decoding and resizing on all cores."""
    data = records.open_records(place.records)
    encoded = [records.parse(record)['encoded'].numpy() for path in data.paths('train')
               for record in tf.data.TFRecordDataset(path).take(160)]
    bare = tf.data.Dataset.from_tensor_slices(encoded).repeat().map(
        lambda jpeg: {'image': tf.image.resize(tf.io.decode_jpeg(jpeg, channels=3), (224, 224)), 'label': 0},
        num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
    for name in ('mild', 'inception'):
        whole = batches.for_training(data, 'train', 224, images.DISTORTIONS[name], BATCH, seed=1)
        found = in_turn(_pictures_a_second(whole), _pictures_a_second(bare), turns=4)
        yield {'what': f'input with {name} distortion, against bare decode_jpeg + resize', 'unit': 'pictures/s',
               'goal': 0.9, **found}


def _pictures_a_second(dataset, count: int = 80) -> Callable[[], float]:
    """From a new iterator in every turn: an old one would have filled its buffers during the other side's turn."""
    def run() -> float:
        iterator = iter(dataset)
        for _ in range(count // 4):  # Until threads and buffers have found their number.
            next(iterator)
        return rate(lambda: sum(len(next(iterator)['label']) for _ in range(count)))()

    return run


def step(place: Place) -> Iterator[dict]:
    """Training from records against the same step fed with one constant batch: what the input costs."""
    recipe, model, data = classifier(place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}')
    update = _training_step(recipe, model, data, model)
    from_records = iter(feeds.of_pictures(model, recipe, data, None).training(0))
    constant = next(from_records)
    found = in_turn(_steps(update, from_records), _steps(update, itertools.repeat(constant)), turns=3)
    yield {'what': 'training mobilenet_v2 from records, against one constant batch', 'unit': 'pictures/s',
           'goal': 0.97, **found}


def _steps(update: Callable, batches_: Iterator, count: int = 8) -> Callable[[], float]:
    """Pictures a second, once what was buffered during the other side's turn is used up."""
    def run() -> float:
        for _ in range(BUFFERED):
            next(batches_)
        return rate(steps)()

    def steps() -> int:
        for _ in range(count):
            loss = update(next(batches_))
        float(loss)  # Waits for the last one.
        return count * BATCH

    return run


def _training_step(recipe: recipes.Recipe, model, data, network) -> Callable:
    strategy = tf.distribute.get_strategy()
    per_class = list(data.split('train').per_class)
    state = train.state_of(model, recipe, data.split('train').records, strategy)
    return train.training_step(network, state, recipe, strategy, per_class, jit_compile=False)


def blocks(place: Place) -> Iterator[dict]:
    """The last blocks from stored activations, against the same training without them."""
    flags = ('--model=mobilenet_v2', f'--pretrained={place.mobilenet}', '--trainable_from=block_13')
    recipe, model, data = classifier(place, *flags)
    parts = zoo.parts(model)
    kept = feeds.of_features(
        parts, recipe, data, place.scratch / 'features', engines.choose(None), None)
    pictures = feeds.of_pictures(model, recipe, data, None)

    def steps_of(feed) -> Callable[[], float]:
        update = _training_step(recipe, model, data, feed.network)
        return _steps(update, iter(feed.training(0)), count=6)

    yield {'what': 'last blocks of mobilenet_v2 from stored activations, against computing them at every step',
           'unit': 'pictures/s', 'goal': 3.0, **in_turn(steps_of(kept), steps_of(pictures), turns=3)}


# What runs while nothing trains ---------------------------------------------------------------------------------------


def features(place: Place) -> Iterator[dict]:
    """The pass over frozen layers with OpenVINO, against TensorFlow."""
    for name, weights in {'mobilenet_v2': place.mobilenet, 'inception_v3': place.inception}.items():
        recipe, model, data = classifier(place, f'--model={name}', f'--pretrained={weights}', '--freeze_backbone')
        frozen = zoo.parts(model).frozen
        sides = []
        for engine in ('openvino', 'tensorflow'):
            outputs_of = engines.function(frozen, engine)
            pictures = iter(batches.for_evaluation(
                data, 'train', recipe.image_size, recipe.crop_fraction, BATCH).repeat())

            sides.append(_steps(lambda batch, outputs_of=outputs_of: outputs_of(batch['image'])[0, 0], pictures))
        yield {'what': f'features of {name} with OpenVINO, against TensorFlow', 'unit': 'pictures/s', 'goal': 1.8,
               **in_turn(*sides, turns=3)}


def eval(place: Place) -> Iterator[dict]:
    """Evaluating records, against keras.Model.evaluate on the same pictures and weights."""
    _, model, data = classifier(place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}')
    logits_of = engines.function(model, engines.choose(None))
    total = data.split('validation').records

    def ours() -> int:
        inference.outputs(logits_of, batches.for_evaluation(data, 'validation', 224, 0.875, BATCH))
        return total

    pictures = keras.utils.image_dataset_from_directory(
        place.photos / 'validation', image_size=(224, 224), batch_size=BATCH, shuffle=False, verbose=False)
    pictures = pictures.map(lambda image, label: (image / 255, label + 1)).prefetch(tf.data.AUTOTUNE)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])

    def theirs() -> int:
        model.evaluate(pictures, verbose=0)
        return total

    yield {'what': 'eval of mobilenet_v2, against keras.Model.evaluate', 'unit': 'pictures/s', 'goal': 1.2,
           **in_turn(rate(ours), rate(theirs), turns=3)}


def head(place: Place) -> Iterator[dict]:
    """The best head on 3170 x 2048 kept features, weight decay chosen."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 6, 3170)
    rows = (random.normal(size=(6, 2048))[labels] + 3 * random.normal(size=(3170, 2048))).astype(np.float16)
    started = time.monotonic()
    regression.fit(rows[:, None], labels, 6, seed=1)
    yield {'what': 'softmax regression on 3170 x 2048', 'unit': 'seconds', 'goal': 5.0, 'n': 1,
           'ours': _spread(np.array([time.monotonic() - started]))}


# Pictures to records --------------------------------------------------------------------------------------------------


def build(place: Place) -> Iterator[dict]:
    """The whole build, against a bare loop that reads, decodes and hashes every file on all cores.

    Both sides are commands: the time to start them counts.
    """
    pictures, large = place.photos / 'train', _large_photos(place.scratch / 'large', 50)
    found = in_turn(_pictures_built(pictures, place), _pictures_looped('hash', pictures), turns=3)
    yield {'what': 'build of flowers, against reading, decoding and hashing alone', 'unit': 'pictures/s', 'goal': 1.1,
           **found}
    found = in_turn(_pictures_built(large, place, '--short_side=299'), _pictures_looped('shrink', large), turns=3)
    yield {'what': 'build --short_side=299 of 12-megapixel photos, against decoding them fully', 'unit': 'pictures/s',
           'goal': 3.0, **found}


def _pictures_built(pictures: Path, place: Place, *flags: str) -> Callable[[], float]:
    def run() -> int:
        _run('finetune', 'build', f'--train_directory={pictures}', f'--output_directory={place.scratch / "built"}',
             '--overwrite', *flags)
        return len(list(pictures.glob('*/*')))

    return rate(run)


def _pictures_looped(loop: str, pictures: Path) -> Callable[[], float]:
    def run() -> int:
        _run('tools.bare_loops', loop, str(pictures))
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


# Whole commands -------------------------------------------------------------------------------------------------------


def cold(place: Place) -> Iterator[dict]:
    """From records to an evaluated Inception-v3, without and with kept features, against 2000 steps of everything."""
    kept = place.scratch / 'cold_features'
    shutil.rmtree(kept, ignore_errors=True)
    flags = (f'--data_dir={place.records}', '--model=inception_v3', f'--pretrained={place.inception}', '--fine_tune')
    head_flags = (*flags, '--freeze_backbone', '--feature_layers=mixed8,mixed9', f'--feature_dir={kept}')

    def train_head(seed: int) -> tuple[float, float]:
        directory = place.scratch / f'cold_run_{seed}'
        shutil.rmtree(directory, ignore_errors=True)
        started = time.monotonic()
        told = _run('finetune', 'train', *head_flags, f'--train_dir={directory}', f'--seed={seed}')
        return time.monotonic() - started, _precision(told)

    seconds, precision = train_head(1)
    started = time.monotonic()
    _run('finetune', 'eval', f'--checkpoint_dir={place.scratch}/cold_run_1', f'--data_dir={place.records}',
         '--run_once')
    seconds += time.monotonic() - started
    recipe, model, data = classifier(place, *flags[1:3])
    update = _training_step(recipe, model, data, model)
    pictures = iter(feeds.of_pictures(model, recipe, data, None).training(0))

    def a_step() -> int:
        float(update(next(pictures)))
        return 1

    a_step()
    step_seconds = 1 / np.array([rate(a_step)() for _ in range(4)])
    yield {'what': 'inception_v3 from records to evaluated, cold, against 2000 steps of 32 of everything',
           'unit': 'seconds', 'goal': 60.0, 'n': 1, 'ours': _spread(np.array([seconds])),
           'theirs': _spread(2000 * step_seconds), 'ratio': _spread(2000 * step_seconds / seconds),
           'precision_at_1': precision}
    warm, precision = zip(*(train_head(seed) for seed in (2, 3)), strict=True)
    yield {'what': 'another seed from kept features, command to numbers', 'unit': 'seconds', 'goal': 20.0, 'n': 2,
           'ours': _spread(np.array(warm)), 'precision_at_1': precision}


def stock_keras(place: Place) -> Iterator[dict]:
    """Wall clock from photos to the precision@1 that we reach, against the peer's on the same weights and split.

    Our part includes `finetune build`. We look at the central 0.875 of each side, the peer at the whole picture.
    """
    theirs = json.loads(_run('tools.stock_keras', str(place.photos), str(place.mobilenet)).splitlines()[-1])
    shutil.rmtree(place.scratch / 'peer_features', ignore_errors=True)
    shutil.rmtree(place.scratch / 'peer_run', ignore_errors=True)
    started = time.monotonic()
    built = place.scratch / 'peer_records'
    _run('finetune', 'build', f'--train_directory={place.photos}/train', f'--output_directory={built}',
         f'--validation_directory={place.photos}/validation', '--overwrite')
    answered = _run(
        'finetune', 'train', f'--data_dir={built}', f'--train_dir={place.scratch / "peer_run"}',
        f'--pretrained={place.mobilenet}', '--fine_tune', '--freeze_backbone',
        f'--feature_dir={place.scratch / "peer_features"}')
    seconds, precision = time.monotonic() - started, _precision(answered)
    reached = next((epoch['seconds'] for epoch in theirs['epochs'] if epoch['accuracy'] >= precision), None)
    yield {'what': 'mobilenet_v2 head, wall clock to the precision@1 that we reach, against stock Keras',
           'unit': 'seconds', 'goal': 4.0, 'n': 1, 'precision_at_1': precision, 'ours': _spread(np.array([seconds])),
           'theirs': _spread(np.array([reached or theirs['epochs'][-1]['seconds']])),
           'ratio': _spread(np.array([(reached or theirs['epochs'][-1]['seconds']) / seconds])),
           'theirs_reached_it': reached is not None, 'peer': theirs}


def scale(place: Place) -> Iterator[dict]:
    """Time and peak memory of build, features and eval for ten times as many pictures."""
    found = {}
    for count in (2_000, 20_000):
        pictures = _small_photos(place.scratch / f'small_{count}', count)
        output, run = place.scratch / f'records_{count}', place.scratch / f'scale_run_{count}'
        shutil.rmtree(run, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)
        found[count] = {
            'build': _measured('finetune', 'build', f'--train_directory={pictures}', f'--output_directory={output}',
                               '--validation_percent=50'),
            'features': _measured('finetune', 'train', f'--data_dir={output}', f'--train_dir={run}',
                                  '--pretrained=sample', '--fine_tune', '--freeze_backbone'),
            'eval': _measured('finetune', 'eval', f'--data_dir={output}', f'--checkpoint_dir={run}', '--run_once')}
    for verb in ('build', 'features', 'eval'):
        (seconds, megabytes), (more_seconds, more_megabytes) = found[2_000][verb], found[20_000][verb]
        yield {'what': f'{verb} of 20,000 drawn pictures, against 2,000', 'n': 1, 'unit': 'seconds and MB at most',
               'ours': [round(more_seconds, 1), round(more_megabytes)], 'theirs': [round(seconds, 1), round(megabytes)],
               'ratio': {'time': round(more_seconds / seconds, 2), 'memory': round(more_megabytes / megabytes, 3)},
               'goal': {'time': 11.0, 'memory': 1.1}}


def _small_photos(folder: Path, count: int) -> Path:
    """Noise of 96 x 96 pixels, in five classes."""
    random = np.random.default_rng(0)
    for index in range(count):
        path = folder / f'class_{index % 5}' / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize((96, 96)).save(path)
    return folder


def _run(module: str, *arguments: str) -> str:
    """What `python -m module` prints; its remarks go where ours go."""
    command = [sys.executable, '-m', module, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def _measured(module: str, *arguments: str) -> tuple[float, float]:
    """(seconds, peak memory in MB) of `python -m module`: of its largest process."""
    code = ('import json, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2, stderr=2);'
            'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)')
    started = time.monotonic()
    done = subprocess.run([sys.executable, '-c', code, sys.executable, '-m', module, *arguments], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.monotonic() - started, int(done.stdout) / 1024


def _precision(printed: str) -> float:
    return float(re.findall(r'precision @ 1 = (\d\.\d+)', printed)[-1])


# The command ----------------------------------------------------------------------------------------------------------

BENCHMARKS = {each.__name__: each for each in (
    input, step, blocks, features, eval, head, build, cold, stock_keras, scale)}


def table(lines: Iterable[str]) -> str:
    """The measurements as rows of Markdown."""
    rows = ['| what | unit | ours | theirs | ratio | n | goal |', '|---|---|---|---|---|---|---|']
    for found in map(json.loads, lines):
        cells = [_cell(found.get(name, '')) for name in ('what', 'unit', 'ours', 'theirs', 'ratio', 'n', 'goal')]
        rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows)


def _cell(value) -> str:
    if isinstance(value, dict) and 'mean' in value:
        return f'{value["mean"]:.4g} ± {value["std"]:.2g}' if value['std'] else f'{value["mean"]:.4g}'
    if isinstance(value, dict):
        return ', '.join(f'{name} {number:g}' for name, number in value.items())
    return f'{value:g}' if isinstance(value, float) else str(value)


def main() -> None:
    if sys.argv[1:] == ['table']:
        print(table(sys.stdin))
        return
    parser = argparse.ArgumentParser(prog='python -m tools.benchmark', description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='+', choices=[*BENCHMARKS, 'all'], help='which')
    parser.add_argument('--photos', type=Path, required=True, help='folder of class folders')
    parser.add_argument('--weights', type=Path, required=True, help='folder of the two weight files')
    parser.add_argument('--scratch', type=Path, default=Path('data/benchmark'), help='may be deleted afterwards')
    options = parser.parse_args()
    place = prepare(options)
    for name in BENCHMARKS if 'all' in options.names else options.names:
        for found in BENCHMARKS[name](place):
            facts = {'benchmark': name, **found, 'machine': machine.describe(), 'versions': machine.versions()}
            print(json.dumps(facts), flush=True)


def prepare(options: argparse.Namespace) -> Place:
    """Splits the photos and builds their records, unless an earlier benchmark did."""
    split, built = options.scratch / 'photos', options.scratch / 'records'
    if not split.exists():
        unfinished = split.with_name('photos.tmp')
        shutil.rmtree(unfinished, ignore_errors=True)
        split_photos.split(options.photos, unfinished, validation=100)
        unfinished.rename(split)
    if not (built / records.MANIFEST).exists():
        _run('finetune', 'build', f'--train_directory={split}/train', f'--validation_directory={split}/validation',
             f'--output_directory={built}', '--train_shards=8')
    return Place(split, built, options.weights, options.scratch)


if __name__ == '__main__':
    main()
