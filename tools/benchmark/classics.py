"""The small classics on CIFAR-10: our training against `fit` of stock Keras."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from finetune.console.lazy import keras, tf
from finetune.records import dataset, examples
from finetune.runs import recipe as recipes
from finetune.runs.state import build_model
from finetune.training import feeds
from tools.benchmark.networks import BUFFERED, rate_of_steps, training_step
from tools.benchmark.place import Place
from tools.benchmark.turns import in_turn

STEPS = 8
PEERS = {  # What --recipe asks for, as Keras' documentation does it: optimizer, L2 of the kernels, distortion.
    'densenet_bc_cifar10': (
        {'momentum': 0.9, 'nesterov': True}, 1e-4,
        lambda: [keras.layers.RandomFlip('horizontal'),
                 keras.layers.RandomTranslation(0.125, 0.125, fill_mode='constant')]),
    'resnet56_cifar10': (
        {'momentum': 0.9}, 1e-4,
        lambda: [keras.layers.ZeroPadding2D(4), keras.layers.RandomCrop(32, 32),
                 keras.layers.RandomFlip('horizontal')]),
    'all_cnn_cifar10': (
        {'momentum': 0.9, 'nesterov': True, 'global_clipnorm': 0.1}, 0.0,
        lambda: [keras.layers.RandomTranslation(0.1, 0.1, fill_mode='constant')]),
}


def classics(place: Place) -> Iterator[dict]:
    """Training from records against `fit` of the same network from pictures that are decoded and in memory.

    The peer is compiled without XLA, which is several times slower on a CPU.
    """
    data = dataset.open_records(place.cifar)
    for name in PEERS:
        recipe = recipes.plan({'recipe': name}, None, data.split('train').records)
        yield {'what': f'training by --recipe={name}, against keras.Model.fit', 'unit': 'pictures/s', 'goal': 1.0,
               **in_turn(_ours(recipe, data), _theirs(recipe, data), turns=3)}


def _ours(recipe: recipes.Recipe, data: dataset.Records) -> Callable[[], float]:
    model = build_model(recipe, len(data.labels))
    update = training_step(recipe, model, data, model)
    batches = iter(feeds.of_pictures(model, recipe, data, None).training(0))
    return rate_of_steps(update, batches, recipe.batch_size, STEPS)


def _theirs(recipe: recipes.Recipe, data: dataset.Records) -> Callable[[], float]:
    optimizer, l2, distortion = PEERS[recipe.recipe]
    model = build_model(recipe, len(data.labels))
    for variable in model.trainable_variables if l2 else ():
        if variable.name == 'kernel':
            variable.regularizer = keras.regularizers.L2(l2)
    model.compile(keras.optimizers.SGD(recipe.initial_learning_rate, **optimizer), metrics=['accuracy'],
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    batches = _in_memory(data, distortion(), recipe.batch_size)

    def run() -> float:
        ended = []  # Each batch.
        clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ended.append(time.monotonic()))
        model.fit(batches, steps_per_epoch=BUFFERED + STEPS, epochs=1, callbacks=[clock], verbose=0)
        return STEPS * recipe.batch_size / (time.monotonic() - ended[BUFFERED - 1])

    return run


def _in_memory(data: dataset.Records, distortion: list, batch_size: int):
    found = [examples.parse(record) for record in tf.data.TFRecordDataset(data.paths('train'))]
    pictures = np.stack([tf.io.decode_png(each['encoded'], 3) for each in found])
    labels = np.array([each['label'] for each in found])

    def distorted(images, labels):
        images = tf.cast(images, tf.float32) / 255
        for layer in distortion:
            images = layer(images, training=True)
        return images, labels

    dataset = tf.data.Dataset.from_tensor_slices((pictures, labels)).shuffle(len(labels)).repeat()
    return dataset.batch(batch_size).map(distorted, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
