import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.console.lazy import keras, tf
from finetune.models import auxiliary, classifier
from finetune.training import towers


def test_a_classifier_is_a_backbone_and_a_head_that_can_be_used_alone():
    model = classifier.build('toy', 5, image_size=16)
    pictures = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    backbone, head = model.get_layer('backbone'), model.get_layer('head')
    features = np.mean(backbone(pictures * 2 - 1), axis=(1, 2))
    np.testing.assert_allclose(model(pictures), head(features), atol=1e-5)
    assert model(pictures).shape == (3, 5)


@pytest.mark.slow
def test_the_same_arguments_give_the_same_names_and_weights_whatever_was_built_before():
    def built():
        classifier.start_afresh(seed=3)
        return classifier.build('mobilenet_v2', 3, image_size=32, width=0.35, dropout=0.1, seed=3)

    first = built()
    classifier.build('mobilenet_v2', 3, image_size=32, width=0.35)
    second = built()
    assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert len({v.path for v in first.variables}) == len(first.variables)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


SETTINGS = {'backend': 'jax', 'image_data_format': 'channels_first', 'floatx': 'float16', 'epsilon': 0.5}
ANSWER = """
from finetune.console.lazy import keras
from finetune.models import classifier
import numpy as np
classifier.start_afresh(seed=1)
model = classifier.build('resnet20_cifar', 3, image_size=32, seed=1)
logits = model(np.linspace(0, 1, 32 * 32 * 3, dtype=np.float32).reshape(1, 32, 32, 3))
print(keras.config.backend(), keras.config.epsilon(), model.compute_dtype, logits.numpy().tolist())
"""


@pytest.mark.slow
def test_the_users_settings_of_keras_change_no_answer(tmp_path):
    """Many have a ~/.keras/keras.json from other work; Keras itself writes one."""
    answers = set()
    for name, settings in {'plain': {}, 'of other work': SETTINGS}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'keras.json').write_text(json.dumps(settings))
        environment = {key: value for key, value in os.environ.items() if key != 'KERAS_BACKEND'}
        done = subprocess.run(
            [sys.executable, '-c', ANSWER], capture_output=True, text=True, cwd=Path(__file__).parents[2],
            env=environment | {'KERAS_HOME': str(tmp_path / name)})
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    answer, = answers
    assert answer.startswith('tensorflow 1e-07 float32 ')


def test_dropout_acts_in_training_only():
    classifier.start_afresh(seed=1)
    model = classifier.build('toy', 3, image_size=16, dropout=0.9)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(pictures, training=False), model(pictures, training=False))
    (first,), (second,) = (classifier.training_logits(model, pictures) for _ in range(2))
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize('batch_norm_trains', [False, True])
def test_dropout_inside_a_network_acts_whether_or_not_its_batch_norm_trains(batch_norm_trains):
    classifier.start_afresh(seed=1)
    model = classifier.build('toy_normalizing', 3, image_size=16, dropout=0.5, batch_norm_trains=batch_norm_trains)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    mean = model.get_layer('backbone').get_layer('last_bn').moving_mean
    (first,), (second,) = (classifier.training_logits(model, pictures) for _ in range(2))
    assert np.abs(first - second).max() > 0
    assert bool(mean.numpy().any()) == batch_norm_trains


def test_nothing_is_dropped_before_the_cut():
    """Else it would train another network than from kept features, where what is frozen is computed once."""
    classifier.start_afresh(seed=1)
    model = classifier.build('toy_normalizing', 3, image_size=16, dropout=0.5)
    classifier.freeze_before(model, 'last_dropout')
    backbone = model.get_layer('backbone')
    before = keras.Model(backbone.input, backbone.get_layer('last_bn').output)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(before(pictures, training=True), before(pictures, training=False))


def test_dropout_drops_others_on_every_tower():
    """With the same mask on all of them, eight towers would see an eighth of the masks."""
    strategy = towers.strategy(2)
    classifier.start_afresh(seed=1)
    with strategy.scope():
        model = classifier.build('toy', 3, image_size=16, dropout=0.5)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    on_a_tower = tf.function(lambda: classifier.training_logits(model, pictures)[0])
    first, second = strategy.experimental_local_results(tf.function(lambda: strategy.run(on_a_tower))())
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize(('cut', 'first'), [('last_conv', 'last_conv'), ('first', 'first_conv')])
def test_what_is_not_frozen_begins_with_the_layer_or_block_that_was_named(cut, first):
    model = classifier.build('toy', 3, image_size=16)
    classifier.freeze_before(model, cut)
    assert model.get_layer('backbone').trainable_variables[0].path.split('/')[0] == first


def test_the_auxiliary_head_has_the_layers_of_the_original():
    head = auxiliary.head((17, 17, 768), 1001, 0.9997, seed=1)
    maps = [tuple(head.get_layer(name).output.shape[1:]) for name in ('aux_pool', 'aux_conv1_relu', 'aux_conv2_relu')]
    assert maps == [(5, 5, 768), (5, 5, 128), (1, 1, 768)]
    trained = [768 * 128, 128, 5 * 5 * 128 * 768, 768, 768 * 1001, 1001]  # Batch norm without a scale; no other biases.
    assert [int(np.prod(variable.shape)) for variable in head.trainable_variables] == trained


@pytest.mark.parametrize('side', [3, 7, 12, 20])
def test_an_auxiliary_head_reads_maps_of_any_size_to_their_edge(side):
    head = auxiliary.head((side, side, 4), 3, 0.9, seed=1)
    assert head.get_layer('aux_conv2_relu').output.shape[1:3] == (1, 1)


def test_an_unknown_layer_is_answered_with_some_that_exist():
    with pytest.raises(Error, match='last_conv'):
        classifier.freeze_before(classifier.build('toy', 3, image_size=16), 'last_cnov')


def test_running_statistics_follow_within_a_short_training():
    """MobileNetV2 has a momentum of 0.999: after 500 steps evaluation would still see mostly the first weights."""
    model = classifier.build('mobilenet_v2', 3, image_size=32, width=0.35, batch_norm_momentum=0.9)
    assert model.get_layer('backbone').get_layer('bn_Conv1').momentum == 0.9
