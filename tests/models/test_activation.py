import numpy as np
import pytest

from finetune.models import activation, classifier


def pictures(count: int = 3, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, 3)).astype(np.float32)


def logits_by_maps(model, views, classes):
    bias = model.get_layer('head').get_layer('logits').bias.numpy()
    return activation.maps(model, views, classes).mean(axis=(1, 2)) + bias[classes]


@pytest.mark.parametrize('feature_layers', [(), ('first_bn', 'last_conv')], ids=['one layer', 'two layers'])
def test_a_map_adds_up_to_the_logit_that_it_explains(feature_layers):
    model = classifier.build('toy', 4, image_size=16, feature_layers=feature_layers)
    head = model.get_layer('head').get_layer('logits')
    head.bias.assign(np.arange(4.0))
    views, classes = pictures(), np.array([3, 0, 2])
    logits = model(views).numpy()[np.arange(3), classes]
    np.testing.assert_allclose(logits_by_maps(model, views, classes), logits, rtol=1e-4, atol=1e-5)


def test_layers_of_sizes_that_do_not_divide_one_another_add_up_too():
    fine, coarse = np.random.default_rng(0).random((2, 7, 7)), np.random.default_rng(1).random((2, 3, 3))
    together = fine + activation._spread(coarse, 7, 7)
    np.testing.assert_allclose(
        together.mean(axis=(1, 2)), fine.mean(axis=(1, 2)) + coarse.mean(axis=(1, 2)), rtol=1e-5)


def test_what_lies_on_the_left_is_shown_on_the_left():
    model = classifier.build('toy', 3, image_size=32)
    dark = np.zeros((1, 32, 32, 3), np.float32)
    lit = dark.copy()
    lit[:, 8:24, :12] = 1
    change = np.abs(activation.maps(model, lit, [1]) - activation.maps(model, dark, [1]))[0]
    assert change[:, :2].sum() > 10 * change[:, -2:].sum()


def test_a_network_that_flattens_has_no_map():
    model = classifier.build('mnist_cnn', 3, image_size=28, width=0.1)
    assert activation.maps(model, pictures(2, 28), [1, 2]) is None
