import numpy as np
import pytest

from finetune import towers
from finetune.errors import Error
from finetune.lazy import keras, tf
from finetune.models import auxiliary, zoo

# Parameters in millions with ImageNet's 1000-class head, as https://keras.io/api/applications publishes them.
PUBLISHED = {
    'xception': 22.9, 'vgg16': 138.4, 'vgg19': 143.7, 'resnet50': 25.6, 'resnet50_v2': 25.6, 'resnet101': 44.7,
    'resnet101_v2': 44.7, 'resnet152': 60.4, 'resnet152_v2': 60.4, 'inception_v3': 23.9, 'inception_resnet_v2': 55.9,
    'mobilenet': 4.3, 'mobilenet_v2': 3.5, 'densenet121': 8.1, 'densenet169': 14.3, 'densenet201': 20.2,
    'nasnet_mobile': 5.3, 'nasnet_large': 88.9, 'efficientnet_b0': 5.3, 'efficientnet_b1': 7.9, 'efficientnet_b2': 9.2,
    'efficientnet_b3': 12.3, 'efficientnet_b4': 19.5, 'efficientnet_b5': 30.6, 'efficientnet_b6': 43.3,
    'efficientnet_b7': 66.7, 'efficientnet_v2_b0': 7.2, 'efficientnet_v2_b1': 8.2, 'efficientnet_v2_b2': 10.2,
    'efficientnet_v2_b3': 14.5, 'efficientnet_v2_s': 21.6, 'efficientnet_v2_m': 54.4, 'efficientnet_v2_l': 119.0,
    'convnext_tiny': 28.6, 'convnext_small': 50.2, 'convnext_base': 88.5, 'convnext_large': 197.7,
    'convnext_xlarge': 350.1, 'mobilenet_v3_small': 2.5, 'mobilenet_v3_large': 5.5,
}
QUICK = ('mobilenet', 'mobilenet_v2')


def test_the_table_of_published_networks_is_the_zoo():
    assert set(PUBLISHED) == {name for name, net in zoo.NETS.items() if isinstance(net.application, str)}


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PUBLISHED])
def test_a_network_has_the_parameters_that_are_published(name):
    if PUBLISHED[name] > 100:
        pytest.skip('its weights alone would fill much of a small machine')
    net = zoo.backbone(name, zoo.NETS[name].size, include_top=True)
    assert net.count_params() / 1e6 == pytest.approx(PUBLISHED[name], abs=0.1)


def test_a_classifier_is_a_backbone_and_a_head_that_can_be_used_alone():
    model = zoo.build('toy', 5, image_size=16)
    pictures = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    backbone, head = model.get_layer('backbone'), model.get_layer('head')
    features = np.mean(backbone(pictures * 2 - 1), axis=(1, 2))
    np.testing.assert_allclose(model(pictures), head(features), atol=1e-5)
    assert model(pictures).shape == (3, 5)


@pytest.mark.slow
def test_the_same_arguments_give_the_same_names_and_weights_whatever_was_built_before():
    def built():
        zoo.start_afresh(seed=3)
        return zoo.build('mobilenet_v2', 3, image_size=32, width=0.35, dropout=0.1, seed=3)

    first = built()
    zoo.build('mobilenet_v2', 3, image_size=32, width=0.35)
    second = built()
    assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert len({v.path for v in first.variables}) == len(first.variables)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_acts_in_training_only():
    zoo.start_afresh(seed=1)
    model = zoo.build('toy', 3, image_size=16, dropout=0.9)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(pictures, training=False), model(pictures, training=False))
    (first,), (second,) = (zoo.training_logits(model, pictures) for _ in range(2))
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize('batch_norm_trains', [False, True])
def test_dropout_inside_a_network_acts_whether_or_not_its_batch_norm_trains(batch_norm_trains):
    zoo.start_afresh(seed=1)
    model = zoo.build('toy_normalizing', 3, image_size=16, dropout=0.5, batch_norm_trains=batch_norm_trains)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    mean = model.get_layer('backbone').get_layer('last_bn').moving_mean
    (first,), (second,) = (zoo.training_logits(model, pictures) for _ in range(2))
    assert np.abs(first - second).max() > 0
    assert bool(mean.numpy().any()) == batch_norm_trains


def test_nothing_is_dropped_before_the_cut():
    """Else it would train another network than from kept features, where what is frozen is computed once."""
    zoo.start_afresh(seed=1)
    model = zoo.build('toy_normalizing', 3, image_size=16, dropout=0.5)
    zoo.freeze_before(model, 'last_dropout')
    backbone = model.get_layer('backbone')
    before = keras.Model(backbone.input, backbone.get_layer('last_bn').output)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(before(pictures, training=True), before(pictures, training=False))


def test_dropout_drops_others_on_every_tower():
    """With the same mask on all of them, eight towers would see an eighth of the masks."""
    strategy = towers.strategy(2)
    zoo.start_afresh(seed=1)
    with strategy.scope():
        model = zoo.build('toy', 3, image_size=16, dropout=0.5)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    on_a_tower = tf.function(lambda: zoo.training_logits(model, pictures)[0])
    first, second = strategy.experimental_local_results(tf.function(lambda: strategy.run(on_a_tower))())
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize(('cut', 'first'), [('last_conv', 'last_conv'), ('first', 'first_conv')])
def test_what_is_not_frozen_begins_with_the_layer_or_block_that_was_named(cut, first):
    model = zoo.build('toy', 3, image_size=16)
    zoo.freeze_before(model, cut)
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
        zoo.freeze_before(zoo.build('toy', 3, image_size=16), 'last_cnov')


def test_an_unknown_network_is_answered_with_the_nearest_name():
    with pytest.raises(Error, match='Did you mean inception_v3'):
        zoo.find('InceptionV3')


def test_running_statistics_follow_within_a_short_training():
    """MobileNetV2 has a momentum of 0.999: after 500 steps evaluation would still see mostly the first weights."""
    model = zoo.build('mobilenet_v2', 3, image_size=32, width=0.35, batch_norm_momentum=0.9)
    assert model.get_layer('backbone').get_layer('bn_Conv1').momentum == 0.9
