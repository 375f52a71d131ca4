import numpy as np
import pytest

from finetune.models import activation, classifier


def pictures(count: int = 3, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).random((count, size, size, 3)).astype(np.float32)


def apart(logits: np.ndarray) -> np.ndarray:
    """What softmax sees of them."""
    return logits - logits.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize('feature_layers', [(), ('first_bn', 'last_conv')], ids=['one layer', 'two layers'])
def test_a_map_adds_up_to_what_sets_its_logit_apart(feature_layers):
    model = classifier.build('toy', 5, image_size=16, feature_layers=feature_layers)
    head = model.get_layer('head').get_layer('logits')
    head.bias.assign([-100.0, 0, 1, 2, 3])  # The first is switched off: it is none of the others.
    views, classes = pictures(), np.array([4, 1, 3])
    logits = model(views).numpy()
    expected = apart((logits - head.bias.numpy())[:, 1:])[np.arange(3), classes - 1]
    found = activation.maps(model, views, classes, range(1, 5)).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_layers_of_sizes_that_do_not_divide_one_another_add_up_too():
    fine, coarse = np.random.default_rng(0).random((2, 7, 7, 4)), np.random.default_rng(1).random((2, 3, 3, 4))
    together = fine + activation._spread(coarse, 7, 7)
    np.testing.assert_allclose(
        np.mean(together, axis=(1, 2)), fine.mean(axis=(1, 2)) + coarse.mean(axis=(1, 2)), rtol=1e-5)


def test_what_lies_on_the_left_is_shown_on_the_left():
    model = classifier.build('toy', 3, image_size=32)
    dark = np.zeros((1, 32, 32, 3), np.float32)
    lit = dark.copy()
    lit[:, 8:24, :12] = 1
    change = np.abs(np.subtract(*(activation.maps(model, views, [1], range(3)) for views in (lit, dark))))[0]
    assert change[:, :2].sum() > 10 * change[:, -2:].sum()


def test_a_network_that_flattens_has_no_map():
    model = classifier.build('mnist_cnn', 3, image_size=28, width=0.1)
    assert activation.maps(model, pictures(2, 28), [1, 2], range(3)) is None
