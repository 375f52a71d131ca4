"""The small classics: each has exactly the weights that its makers, or arithmetic, say."""

import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.console.lazy import keras, tf
from finetune.models import classifier, zoo
from finetune.models.classics import densenet_bc, resnet_cifar

PARAMETERS = {  # (network, size in px, outputs): parameters that train. Outputs are N + 1 for N classes.
    ('mnist_cnn', 28, 10): 832 + 51_264 + 3_212_288 + 10_250,
    ('alexnet', 224, 1000): 61_100_840,  # As torchvision counts it.
    ('alexnet', 28, 10): sum((4_864, 307_392, 663_936, 884_992, 590_080, 16_781_312, 16_781_312, 40_970)),
    ('resnet20_cifar', 32, 10): 269_722,  # The paper: 0.27, 0.46, 0.85 and 1.7 million.
    ('resnet32_cifar', 32, 10): 464_154,
    ('resnet56_cifar', 32, 10): 853_018,
    ('resnet110_cifar', 32, 10): 1_727_962,
    ('densenet_bc', 32, 10): 769_162,
    ('all_cnn', 32, 10): 1_369_738,
}
SLOW = ('resnet110_cifar',)
CLASSICS = ('mnist_cnn', 'alexnet', 'resnet20_cifar', 'all_cnn', 'densenet_bc')


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(('name', 'size', 'outputs'), [
    pytest.param(*key, marks=pytest.mark.slow if key[0] in SLOW else []) for key in PARAMETERS])
def test_a_classic_has_the_parameters_of_the_original(name, size, outputs):
    model = classifier.build(name, outputs, image_size=size)
    assert count(model.trainable_variables) == PARAMETERS[name, size, outputs]


def test_a_densenet_halves_the_channels_that_there_are_at_each_transition():
    """The post counted on from the channels before the first one: its second transition made 204 of 150."""
    backbone = densenet_bc.backbone(False, None, (32, 32, 3))
    assert [backbone.get_layer(f'transition{i}_conv').filters for i in (1, 2)] == [108, 150]
    everything = count(backbone.variables) + 342 * 10 + 10
    assert everything == 793_150  # With the statistics of batch normalisation.


def test_growth_and_compression_are_those_that_are_asked_for():
    small = densenet_bc.backbone(False, None, (32, 32, 3), depth=10, growth=4, compression=0.25)
    assert small.output_shape == (None, 8, 8, 5)  # 8 + 4 = 12, a quarter is 3; 3 + 4 = 7, a quarter is 1; 1 + 4 = 5.


@pytest.mark.slow
@pytest.mark.parametrize('name', CLASSICS)
def test_a_classic_comes_in_other_widths(name):
    size = min(zoo.NETS[name].size, 32)
    thin, whole = (zoo.backbone(name, size, width).output_shape[-1] for width in (0.25, 1.0))
    assert whole / thin == pytest.approx(4, rel=0.1)


def test_alexnet_keeps_the_pixels_of_a_small_picture():
    assert zoo.backbone('alexnet', 32, 0.1).get_layer('conv1').strides == (1, 1)
    assert zoo.backbone('alexnet', 224, 0.1).get_layer('dense6').kernel.shape[0] == 6 * 6 * 26


def test_averaging_before_the_last_convolution_of_all_cnn_changes_no_number():
    model = classifier.build('all_cnn', 10, image_size=16, width=0.1)
    pictures = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    logits = model.get_layer('head').get_layer('logits')
    convolved = tf.nn.conv2d(model.get_layer('backbone')(pictures), logits.kernel.value[None, None], 1, 'VALID')
    np.testing.assert_allclose(
        np.mean(convolved, axis=(1, 2)) + logits.bias.numpy(), model(pictures), atol=1e-6)


@pytest.mark.parametrize(('name', 'places'), [
    ('mnist_cnn', {'dropout'}), ('alexnet', {'dropout6', 'dropout'}), ('all_cnn', {'dropout3', 'dropout6'}),
    ('resnet20_cifar', {'dropout'})])
def test_dropout_acts_where_the_original_has_it(name, places):
    model = classifier.build(name, 10, image_size=28, width=0.1, dropout=0.5)
    inside = [layer for part in ('backbone', 'head') for layer in model.get_layer(part).layers]
    acting = {layer.name for layer in inside if isinstance(layer, keras.layers.Dropout) and layer.rate}
    assert acting == places


def test_a_picture_is_standardized_as_tensorflow_does_it():
    random = np.random.default_rng(0)
    pictures = np.stack([random.random((8, 8, 3)), np.full((8, 8, 3), 0.7), 0.01 * random.random((8, 8, 3))])
    layer = classifier.build('resnet20_cifar', 3, image_size=8, width=0.1).get_layer('pixel_range')
    np.testing.assert_allclose(
        layer(pictures.astype(np.float32)), tf.image.per_image_standardization(pictures), atol=1e-4)


def test_densenet_sees_pixels_of_mean_0_and_deviation_1():
    layer = classifier.build('densenet_bc', 3, image_size=8, width=0.1).get_layer('pixel_range')
    mean, std = np.array(zoo.CIFAR_MEAN), np.array(zoo.CIFAR_STD)
    pixels = (np.stack([mean, mean + std]) / 255).astype(np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(layer(pixels)[0, 0], [[0, 0, 0], [1, 1, 1]], atol=1e-5)


def test_a_shortcut_leaves_pixels_out_and_adds_zeros():
    backbone = resnet_cifar.backbone(False, None, (8, 8, 3), depth=8, alpha=0.25)
    x = np.random.default_rng(0).random((1, 8, 8, 4)).astype(np.float32)
    shortcut = np.asarray(backbone.get_layer('conv3_block1_shortcut')(x))
    np.testing.assert_array_equal(shortcut[..., 2:6], x[:, ::2, ::2])
    assert not shortcut[..., :2].any() and not shortcut[..., 6:].any()


def test_no_published_weights_are_looked_for_where_there_are_none():
    with pytest.raises(Error, match='no imagenet weights are published for --model=mnist_cnn'):
        zoo.backbone('mnist_cnn', 28, weights='imagenet')
