"""A named recipe computes what stock Keras computes: same weights, same batches, same losses for twenty steps.

The constants of the Keras side stand here once more, as their sources state them, so that a slip in a recipe shows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from finetune.console.lazy import keras, tf
from finetune.models import zoo
from finetune.models.classics import densenet_bc
from finetune.runs import catalogue, recipe
from finetune.runs.state import build_model
from finetune.training import loop, opening

pytestmark = pytest.mark.kernels

STEPS, BATCH, CLASSES = 20, 8, 4
TRAIN_RECORDS = 1  # An epoch is an eighth of a step, so that the learning rate changes within the twenty.
STEPS_PER_EPOCH = TRAIN_RECORDS / BATCH


class Stock(NamedTuple):
    optimizer: Callable  # Without arguments.
    rate: Callable  # step -> learning rate.
    l2: float = 0.0  # As keras.regularizers.L2 takes it: times the sum of squares.
    smoothing: float = 0.0
    aux_weight: float = 0.0
    scale: float = 1.0  # Of the rate, on both sides; at the whole one noise amplifies the last bit a thousandfold.
    changes: dict = {}  # noqa: RUF012 - to the recipe, to make the network small.


def stairs(rate: float, by_epoch: dict[float, float]) -> Callable:
    """`rate`, and from each epoch on another."""
    def at(step):
        reached = [value for epoch, value in by_epoch.items() if step >= int(epoch * STEPS_PER_EPOCH)]
        return reached[-1] if reached else rate
    return at


def sgd(momentum: float, **more) -> Callable:
    return lambda: keras.optimizers.SGD(momentum=momentum, **more)


def rmsprop():
    return keras.optimizers.RMSprop(rho=0.9, momentum=0.9, epsilon=1.0)


STOCK = {
    'mnist_cnn': Stock(keras.optimizers.Adam, lambda step: 1e-4, changes={'width': 0.1}),
    'alexnet_mnist': Stock(keras.optimizers.Adadelta, lambda step: 0.02, changes={'width': 0.05}),
    'resnet_mnist': Stock(sgd(0.9), lambda step: 0.1, l2=1e-4, scale=0.1, changes={'width': 0.25}),
    'resnet56_cifar10': Stock(
        sgd(0.9), stairs(0.1, {91: 0.01, 136: 0.001, 182: 0.0001}), l2=1e-4,
        changes={'model': 'resnet20_cifar', 'width': 0.25, 'image_size': 16}),
    'densenet_bc_cifar10': Stock(
        sgd(0.9, nesterov=True), stairs(0.1, {101: 0.01, 181: 0.0005}), l2=1e-4,
        changes={'width': 0.25, 'image_size': 16}),
    'all_cnn_cifar10': Stock(
        sgd(0.9, nesterov=True, global_clipnorm=0.1), lambda step: 0.1 / (1 + step / (640 * STEPS_PER_EPOCH)),
        changes={'width': 0.1}),
    'inception_v3_flowers': Stock(
        rmsprop, lambda step: 0.001 * 0.16 ** (step // 3), l2=2e-5, smoothing=0.1, aux_weight=0.4,
        changes={'image_size': 75, 'feature_layers': 'mixed0', 'pretrained': '', 'fine_tune': False}),
    'inception_v3_imagenet': Stock(
        rmsprop, lambda step: 0.1 * 0.16 ** (step // 3), l2=2e-5, smoothing=0.1, aux_weight=0.4, scale=0.1,
        changes={'image_size': 75, 'feature_layers': 'mixed0'}),
}
QUICK = ('mnist_cnn', 'all_cnn_cifar10')


@pytest.fixture(autouse=True)
def short_networks(monkeypatch):
    """A DenseNet of 16 layers; an Inception-v3 up to its first block, which is also what its auxiliary head reads."""
    short = {'densenet_bc': {'application': functools.partial(densenet_bc.backbone, depth=16)},
             'inception_v3': {'auxiliary': 'mixed0'}}
    for name, changes in short.items():
        monkeypatch.setitem(zoo.NETS, name, dataclasses.replace(zoo.NETS[name], **changes))


def test_every_named_recipe_is_compared():
    assert set(STOCK) == set(catalogue.names())


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in STOCK])
def test_twenty_steps_lose_what_stock_keras_loses(name):
    stock = STOCK[name]
    rate = stock.scale * catalogue.find(name).flags['initial_learning_rate']
    planned = recipe.plan(
        {'recipe': name, 'batch_size': BATCH, 'dropout': 0.0, 'initial_learning_rate': rate, **stock.changes}, None,
        TRAIN_RECORDS)
    pictures = batches(planned.image_size)
    initial, ours = losses_here(planned, pictures)
    theirs = losses_of_keras(planned, stock, initial, pictures)
    assert np.isfinite(ours).all() and np.ptp(ours) > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def batches(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise with every label in it, so that smoothing over the labels that occur is smoothing over all."""
    random = np.random.default_rng(0)
    return [(random.random((BATCH, size, size, 3), np.float32), random.integers(0, CLASSES, BATCH))
            for _ in range(STEPS)]


def losses_here(planned: recipe.Recipe, pictures: list) -> tuple[list[np.ndarray], list[float]]:
    """(the first weights, with those of the auxiliary head, the loss of every step)"""
    strategy = tf.distribute.get_strategy()
    state = opening.state_of(build_model(planned, CLASSES), planned, TRAIN_RECORDS, strategy)
    initial = [part.get_weights() for part in (state.model, state.auxiliary and state.auxiliary.head) if part]
    update = loop.training_step(state.model, state, planned, strategy, [1] * CLASSES, jit_compile=False)
    return initial, [float(update({'image': tf.constant(images), 'label': tf.constant(labels, tf.int32)}))
                     for images, labels in pictures]


def losses_of_keras(planned: recipe.Recipe, stock: Stock, initial: list, pictures: list) -> list[float]:
    model = build_model(planned, CLASSES)
    model.set_weights(initial[0])
    if stock.aux_weight:
        model = with_a_second_output(model, initial[1])
    for variable in model.trainable_variables:
        if variable.name == 'kernel' and stock.l2:
            variable.regularizer = keras.regularizers.L2(stock.l2)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=stock.smoothing)
    outputs = len(model.outputs)
    model.compile(
        stock.optimizer(), [loss] * outputs, loss_weights=[1.0, stock.aux_weight][:outputs], jit_compile=False)
    losses = []
    for step, (images, labels) in enumerate(pictures):
        model.optimizer.learning_rate.assign(stock.scale * stock.rate(step))
        model.reset_metrics()
        targets = np.eye(CLASSES, dtype=np.float32)[labels]
        found = model.train_on_batch(images, [targets] * outputs)
        losses.append(float(np.ravel(found)[0]))  # Of several: their weighted sum comes first.
    return losses


def with_a_second_output(model, weights: list[np.ndarray]):
    """The classifier and an auxiliary head on its first block, as one writes it in Keras."""
    backbone = model.get_layer('backbone')
    body = keras.Model(backbone.input, [backbone.output, backbone.get_layer('mixed0').output])
    head, auxiliary = model.get_layer('head'), keras.Sequential()
    auxiliary.add(keras.layers.AveragePooling2D(5, 3))  # 7x7 of 75 px become 1x1.
    for filters in (128, 768):
        auxiliary.add(keras.layers.Conv2D(filters, 1, use_bias=False))
        auxiliary.add(keras.layers.BatchNormalization(momentum=0.9997, epsilon=0.001, scale=False))
        auxiliary.add(keras.layers.ReLU())
    auxiliary.add(keras.layers.Flatten())
    auxiliary.add(keras.layers.Dense(CLASSES))
    last, block = body(model.get_layer('pixel_range')(model.input))
    both = keras.Model(model.input, [head(model.get_layer('features')(last)), auxiliary(block)])
    auxiliary.set_weights(weights)
    return both
