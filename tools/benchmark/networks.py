"""What runs while a network trains, and while nothing does."""

import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np

from finetune import train
from finetune.console.lazy import keras, tf
from finetune.evaluation import inference
from finetune.features import regression
from finetune.models import cuts, engines
from finetune.pictures.views import DISTORTIONS
from finetune.records import batches, dataset, examples
from finetune.runs import recipe as recipes
from finetune.runs.state import build_model
from finetune.training import feeds, loop, opening, pretrained
from tools.benchmark.place import Place
from tools.benchmark.turns import in_turn, rate, spread

BATCH = 32
BUFFERED = 4  # Batches that a pipeline may have ready.


def prepared(place: Place, *flags: str):
    """(recipe, model with pretrained weights, records) as `finetune train` with these flags would have them."""
    data = dataset.open_records(place.records)
    given = train.FLAGS.parse([f'--data_dir={place.records}', '--fine_tune', *flags])
    typed = {name: getattr(given, name) for name in recipes.FIELDS if name in given.given}
    recipe = recipes.plan(typed, None, data.split('train').records)
    model = build_model(recipe, len(data.labels))
    pretrained.restore(model, pretrained.read(recipe), data.labels, fine_tune=True)
    return recipe, model, data


# What runs while a network trains -------------------------------------------------------------------------------------


def input(place: Place) -> Iterator[dict]:
    """Reading, decoding, distorting and batching, against bare decoding and resizing on all cores."""
    data = dataset.open_records(place.records)
    encoded = [examples.parse(record)['encoded'].numpy() for path in data.paths('train')
               for record in tf.data.TFRecordDataset(path).take(160)]
    bare = tf.data.Dataset.from_tensor_slices(encoded).repeat().map(
        lambda jpeg: {'image': tf.image.resize(tf.io.decode_jpeg(jpeg, channels=3), (224, 224)), 'label': 0},
        num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
    for name in ('mild', 'inception'):
        whole = batches.for_training(data, 'train', 224, DISTORTIONS[name], BATCH, seed=1)
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
    recipe, model, data = prepared(place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}')
    update = training_step(recipe, model, data, model)
    from_records = iter(feeds.of_pictures(model, recipe, data, None).training(0))
    constant = next(from_records)
    found = in_turn(rate_of_steps(update, from_records), rate_of_steps(update, itertools.repeat(constant)), turns=3)
    yield {'what': 'training mobilenet_v2 from records, against one constant batch', 'unit': 'pictures/s',
           'goal': 0.97, **found}


def rate_of_steps(update: Callable, batches_: Iterator, batch_size: int = BATCH, count: int = 8) -> Callable[[], float]:
    """Pictures a second, once what was buffered during the other side's turn is used up."""
    def run() -> float:
        for _ in range(BUFFERED):
            next(batches_)
        return rate(work)()

    def work() -> int:
        for _ in range(count):
            loss = update(next(batches_))
        float(loss)  # Waits for the last one.
        return count * batch_size

    return run


def training_step(recipe: recipes.Recipe, model, data, network) -> Callable:
    strategy = tf.distribute.get_strategy()
    per_class = list(data.split('train').per_class)
    state = opening.state_of(model, recipe, data.split('train').records, strategy)
    return loop.training_step(network, state, recipe, strategy, per_class, jit_compile=False)


def blocks(place: Place) -> Iterator[dict]:
    """The last blocks from stored activations, against the same training without them."""
    flags = ('--model=mobilenet_v2', f'--pretrained={place.mobilenet}', '--trainable_from=block_13')
    recipe, model, data = prepared(place, *flags)
    parts = cuts.parts(model)
    kept = feeds.of_features(
        parts, recipe, data, place.scratch / 'features', engines.choose_for_features(None), None)
    pictures = feeds.of_pictures(model, recipe, data, None)

    def steps_of(feed) -> Callable[[], float]:
        update = training_step(recipe, model, data, feed.network)
        return rate_of_steps(update, iter(feed.training(0)), count=6)

    yield {'what': 'last blocks of mobilenet_v2 from stored activations, against computing them at every step',
           'unit': 'pictures/s', 'goal': 3.0, **in_turn(steps_of(kept), steps_of(pictures), turns=3)}


# What runs while nothing trains ---------------------------------------------------------------------------------------


def features(place: Place) -> Iterator[dict]:
    """The pass over frozen layers with OpenVINO, against TensorFlow."""
    for name, weights in {'mobilenet_v2': place.mobilenet, 'inception_v3': place.inception}.items():
        recipe, model, data = prepared(place, f'--model={name}', f'--pretrained={weights}', '--freeze_backbone')
        frozen = cuts.parts(model).frozen
        sides, ours = [], engines.choose_for_features(None)
        for engine in (ours, 'tensorflow'):
            outputs_of = engines.frozen(frozen, engine)
            pictures = iter(batches.for_evaluation(
                data, 'train', recipe.image_size, recipe.crop_fraction, BATCH).repeat())

            sides.append(rate_of_steps(lambda batch, outputs_of=outputs_of: outputs_of(batch['image'])[0, 0], pictures))
        yield {'what': f'features of {name} with {ours}, against TensorFlow', 'unit': 'pictures/s', 'goal': 1.8,
               **in_turn(*sides, turns=3)}


def eval(place: Place) -> Iterator[dict]:
    """The pass of `eval` over records, against keras.Model.evaluate on the same pictures and weights."""
    _, model, data = prepared(place, '--model=mobilenet_v2', f'--pretrained={place.mobilenet}')
    total = data.split('validation').records
    pictures = keras.utils.image_dataset_from_directory(
        place.photos / 'validation', image_size=(224, 224), batch_size=BATCH, shuffle=False, verbose=False)
    pictures = pictures.map(lambda image, label: (image / 255, label + 1)).prefetch(tf.data.AUTOTUNE)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=['accuracy'])

    def theirs() -> int:
        model.evaluate(pictures, verbose=0)
        return total

    for engine in ('openvino', 'tensorflow'):
        logits_of = engines.frozen(model, engine)

        def ours(logits_of=logits_of) -> int:
            inference.outputs(logits_of, batches.for_evaluation(data, 'validation', 224, 0.875, BATCH))
            return total

        yield {'what': f'eval of mobilenet_v2 with --engine={engine}, against keras.Model.evaluate',
               'unit': 'pictures/s', 'goal': 1.2, **in_turn(rate(ours), rate(theirs), turns=3)}


def head(place: Place) -> Iterator[dict]:
    """The best head on features drawn around a centre for each class, weight decay chosen."""
    random = np.random.default_rng(0)
    labels = random.integers(1, 6, 3170)
    rows = (random.normal(size=(6, 2048))[labels] + 3 * random.normal(size=(3170, 2048))).astype(np.float16)
    seconds = []
    for seed in (1, 2, 3):
        started = time.monotonic()
        regression.fit(rows[:, None], labels, 6, seed)
        seconds.append(time.monotonic() - started)
    yield {'what': 'softmax regression on 3170 x 2048 drawn features', 'unit': 'seconds', 'goal': 5.0, 'n': 3,
           'ours': spread(np.array(seconds))}
