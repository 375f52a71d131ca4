import numpy as np
import pytest

from finetune.console.lazy import keras, tf
from finetune.models import classifier
from finetune.models.averages import Averages
from finetune.runs import recipe
from finetune.training import optimize


def test_the_learning_rate_steps_down_and_does_not_slide():
    schedule = optimize.exponential_decay(0.1, decay_steps=10, factor=0.16)
    assert [round(float(schedule(step)), 6) for step in (0, 9, 10, 19, 20)] == [0.1, 0.1, 0.016, 0.016, 0.00256]


def rates(name: str, steps, **changes) -> list[float]:
    """At these steps, beginning at 0.1, with four steps an epoch."""
    facts = {'steps_per_epoch': 4.0, 'max_steps': 40, 'epochs_per_decay': 5.0, 'decay_factor': 0.5, 'pieces': {},
             'warmup_epochs': 0.0}
    schedule = optimize.schedule(name, 0.1, **{**facts, **changes})
    return [pytest.approx(float(schedule(step)), rel=1e-5) for step in steps]


def test_a_piece_begins_with_the_first_step_of_its_epoch():
    found = rates('piecewise', (0, 7, 8, 11, 12, 99), pieces={2.0: 0.1, 3.0: 0.01})
    assert found == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def test_schedules_fall_as_they_are_called():
    assert rates('exponential', (0, 19, 20)) == [0.1, 0.1, 0.05]
    assert rates('cosine', (0, 20, 40)) == [0.1, 0.05, 0.0]
    assert rates('inverse_time', (0, 20, 40)) == [0.1, 0.05, 0.1 / 3]  # As Keras' old decay=1/20.
    assert rates('constant', (0, 1000)) == [0.1, 0.1]


def test_warm_up_rises_to_what_the_schedule_says():
    assert rates('exponential', (0, 1, 7, 8, 20), warmup_epochs=2.0) == [0.0125, 0.025, 0.1, 0.1, 0.05]


def test_a_schedule_works_inside_a_compiled_step():
    optimizer = optimize.optimizer('sgd', optimize.schedule(
        'piecewise', 0.5, steps_per_epoch=1.0, max_steps=9, epochs_per_decay=1.0, decay_factor=1.0, pieces={2.0: 0.1},
        warmup_epochs=2.0))
    weight = keras.Variable(np.float32(0.0))
    optimizer.build([weight])
    step = tf.function(lambda: optimizer.apply([tf.constant(-1.0)], [weight]))
    moved = []
    for _ in range(3):
        step()
        moved.append(float(weight))
    np.testing.assert_allclose(moved, [0.25, 0.75, 0.8], rtol=1e-6)


def test_rmsprop_has_its_epsilon_inside_the_square_root():
    weight = keras.Variable(np.float32(1.0))
    optimizer = optimize.optimizer('rmsprop', 0.1, decay=0.9, momentum=0.0, epsilon=1.0)
    optimizer.apply([np.float32(2.0)], [weight])
    assert float(weight) == pytest.approx(1 - 0.1 * 2 / np.sqrt(0.1 * 4 + 1.0))


@pytest.mark.parametrize('name', recipe.OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
    weight = keras.Variable(np.float32(1.0))
    optimize.optimizer(name, 0.1).apply([np.float32(1.0)], [weight])
    assert float(weight) < 1.0


@pytest.fixture
def model():
    return classifier.build('toy', 3, image_size=16)


def test_averages_warm_up_instead_of_clinging_to_the_first_weights(model):
    averages = Averages(model, decay=0.9999)
    averages.start()
    first = averages.weights[0].numpy()
    averages.weights[0].assign(first + 1)
    averages.update(0.0)
    np.testing.assert_allclose(averages.averages[0], first + 0.9, rtol=1e-5)  # 1 - (1 + 0) / (10 + 0).


def test_after_evaluation_with_averages_the_training_weights_are_back(model):
    averages = Averages(model, decay=0.9)
    averages.start()
    for average in averages.averages:
        average.assign(average + 5)
    own = [weight.numpy() for weight in averages.weights]
    with averages.applied():
        np.testing.assert_allclose(averages.weights[0].numpy(), own[0] + 5, rtol=1e-5)
    for weight, value in zip(averages.weights, own, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_averages_hold_the_statistics_of_batch_normalisation_but_nothing_frozen(model):
    names = {weight.path for weight in Averages(model, 0.9).weights}
    assert 'first_bn/moving_mean' in names and 'logits/kernel' in names
    model.get_layer('backbone').trainable = False
    assert {weight.path for weight in Averages(model, 0.9).weights} == {'logits/kernel', 'logits/bias'}


def test_adamw_takes_weight_decay_off_the_kernels_alone_and_apart_from_the_gradient():
    """In the gradient it would be divided by the gradient's own size: weights that matter would decay least."""
    layer = keras.layers.Dense(1, bias_initializer='ones')
    layer.build((None, 1))
    kernel = layer.kernel.numpy()
    optimizer = optimize.optimizer('adamw', 0.1, weight_decay=0.01)
    optimizer.apply([np.zeros((1, 1), np.float32), np.zeros(1, np.float32)], layer.trainable_variables)
    np.testing.assert_allclose(layer.kernel.numpy(), kernel * (1 - 0.1 * 0.01), rtol=1e-6)
    assert layer.bias.numpy() == 1
    assert recipe.Recipe(optimizer='adamw', weight_decay=0.01).weight_decay_in_loss == 0
    assert recipe.Recipe(optimizer='adam', weight_decay=0.01).weight_decay_in_loss == 0.01
