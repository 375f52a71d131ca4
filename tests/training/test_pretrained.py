"""The start table, row by row, and every kind of weights it takes."""

import functools
import http.server
import threading

import h5py
import numpy as np
import pytest

from finetune import train
from finetune.console.errors import Error
from finetune.console.lazy import keras
from finetune.models import classifier, weights, zoo
from finetune.runs import recipe
from finetune.runs.run import Run
from finetune.runs.state import build_model
from finetune.training import pretrained
from tests import toy_net, toy_records, toy_run
from tests.shared import FLOWERS, WEIGHTS, needs_flowers, needs_weights

OTHER_LABELS = ('background', 'cat', 'dog', 'fish', 'cow', 'hen')


def train_toy(data, directory, *flags) -> int:
    return train.main([f'--data_dir={data}', f'--train_dir={directory}', '--batch_size=8', '--optimizer=sgd', *flags])


@pytest.fixture
def data(tmp_path):
    return toy_records.write(tmp_path / 'records')


@pytest.fixture
def other_run(tmp_path):
    """A run with six outputs; what is trained next has four."""
    records = toy_records.write(tmp_path / 'other_records', labels=OTHER_LABELS)
    assert train_toy(records, tmp_path / 'other', '--model=toy', '--max_steps=2', '--initial_learning_rate=0.5') == 0
    return tmp_path / 'other'


def weights_of(directory, part: str) -> list[np.ndarray]:
    return Run(directory).load('last').model.get_layer(part).get_weights()


def restart(data, directory, *flags) -> int:
    """One step of no length: the weights of the checkpoint are the first weights."""
    return train_toy(data, directory, '--max_steps=1', '--initial_learning_rate=0', *flags)


# The table ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_anything_the_weights_are_random_and_the_seed_decides_them(data, tmp_path):
    for name, seed in {'a': 1, 'b': 1, 'c': 2}.items():
        assert restart(data, tmp_path / name, '--model=toy', f'--seed={seed}') == 0
    first = weights_of(tmp_path / 'a', 'backbone')[0]
    np.testing.assert_array_equal(first, weights_of(tmp_path / 'b', 'backbone')[0])
    assert np.abs(first - weights_of(tmp_path / 'c', 'backbone')[0]).max() > 0.01


def test_fine_tune_takes_the_backbone_and_starts_with_a_new_head(data, other_run, tmp_path, capfd):
    assert restart(data, tmp_path / 'run', f'--pretrained={other_run}', '--fine_tune') == 0
    for old, new in zip(weights_of(other_run, 'backbone'), weights_of(tmp_path / 'run', 'backbone'), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-7)
    assert weights_of(tmp_path / 'run', 'head')[0].shape == (16, 4)
    err = capfd.readouterr().err
    assert 'restored 8 tensors of 3 backbone layers' in err and 'head: new' in err


def test_without_fine_tune_other_classes_are_an_error_that_lists_both_heads(data, other_run, tmp_path, capfd):
    assert restart(data, tmp_path / 'run', f'--pretrained={other_run}') == 1
    err = capfd.readouterr().err
    assert '6 outputs (background, cat, dog, fish, cow, hen)' in err and '4 (background, red, green, blue)' in err
    assert '--fine_tune' in err


@pytest.mark.slow
def test_without_fine_tune_the_same_classes_keep_their_head(data, tmp_path):
    assert train_toy(data, tmp_path / 'first', '--model=toy', '--max_steps=3') == 0
    assert restart(data, tmp_path / 'second', f'--pretrained={tmp_path / "first"}') == 0
    for part in ('backbone', 'head'):
        for old, new in zip(weights_of(tmp_path / 'first', part), weights_of(tmp_path / 'second', part), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize('then', ['background', 'none'])
def test_an_output_is_on_where_there_are_pictures_whatever_it_was_in_the_run_before(tmp_path, then):
    """An output that is off has no gradient, so it would never be the answer; one that is on could be."""
    counts = {'background': [8, 8, 8, 8], 'none': [0, 8, 8, 8]}
    for name, per_label in counts.items():
        toy_run.write_records(tmp_path / name, train=per_label)
    before = next(name for name in counts if name != then)
    assert train_toy(tmp_path / before, tmp_path / 'first', '--model=toy', '--max_steps=1') == 0
    assert restart(tmp_path / then, tmp_path / 'second', f'--pretrained={tmp_path}/first') == 0
    (first_kernel, first_bias), (kernel, bias) = (weights_of(tmp_path / name, 'head') for name in ('first', 'second'))
    assert (bias[0] == classifier.NEVER) == (then == 'none')
    np.testing.assert_array_equal(bias[1:], first_bias[1:])
    np.testing.assert_array_equal(kernel[:, 1:], first_kernel[:, 1:])


def test_the_same_number_of_other_labels_is_not_the_same_head(other_run, tmp_path, capfd):
    renamed = toy_records.write(tmp_path / 'renamed', labels=('background', 'a', 'b', 'c', 'd', 'e'))
    assert restart(renamed, tmp_path / 'run', f'--pretrained={other_run}') == 1
    assert '--fine_tune' in capfd.readouterr().err


def test_a_checkpoint_in_the_run_directory_wins_over_pretrained(data, other_run, tmp_path, capfd):
    assert train_toy(data, tmp_path / 'run', '--model=toy', '--max_steps=2') == 0
    before = weights_of(tmp_path / 'run', 'backbone')
    assert train_toy(data, tmp_path / 'run', '--max_steps=2', f'--pretrained={other_run}', '--fine_tune') == 0
    err = capfd.readouterr().err
    assert 'goes on from step 2' in err and '--pretrained is not used' in err
    for old, new in zip(before, weights_of(tmp_path / 'run', 'backbone'), strict=True):
        np.testing.assert_array_equal(old, new)


# Files ----------------------------------------------------------------------------------------------------------------


def toy_model(classes=4):
    return build_model(recipe.plan({'model': 'toy'}, None, 10), classes)


def restored(path, labels=toy_records.LABELS, fine_tune=True):
    model = toy_model(len(labels))
    report = pretrained.restore(model, pretrained.Source(str(path), weights.read(path)), labels, fine_tune)
    return model, report


def filled_backbone(include_top: int = 0):
    backbone = toy_model().get_layer('backbone')
    if include_top:
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
        backbone = keras.Model(backbone.input, keras.layers.Dense(include_top, name='predictions')(pooled))
    backbone.set_weights([np.full(w.shape, i + 1, np.float32) for i, w in enumerate(backbone.weights)])
    return backbone


@pytest.mark.parametrize('name', ['toy.weights.h5', 'toy_legacy.h5'])
def test_both_kinds_of_weight_file_give_the_same_weights(tmp_path, name):
    backbone = filled_backbone()
    write_weights(backbone, tmp_path / name)
    model, report = restored(tmp_path / name)
    for expected, found in zip(backbone.get_weights(), model.get_layer('backbone').get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert report.missing == [] and report.left_over == []


@pytest.mark.parametrize('name', ['top.weights.h5', 'top_legacy.h5'])
def test_a_published_head_fills_the_classes_after_the_background(tmp_path, name):
    write_weights(filled_backbone(include_top=3), tmp_path / name)
    model, report = restored(tmp_path / name, fine_tune=False)
    kernel, bias = model.get_layer('head').get_weights()
    assert (kernel[:, 1:] == 9).all() and (bias[1:] == 10).all()
    assert bias[0] == 0 and np.abs(kernel[:, 0]).max() < 0.1  # New.
    assert report.head == 'restored, 3 outputs'
    assert restored(tmp_path / name)[1].left_over == ['dense' if 'weights' in name else 'predictions']


def write_weights(model, path):
    if path.name.endswith('.weights.h5'):
        model.save_weights(path)
        return
    with h5py.File(path, 'w') as file:  # As Keras 2 wrote it; its last writer cannot be installed beside Keras 3.
        file.attrs['layer_names'] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f'{layer.name}/{weight.name}:0' for weight in layer.weights]
            group.attrs['weight_names'] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=weight.numpy())


def inside(backbone, classes: int):
    """As the tutorials of Keras build it: the backbone is one layer of a model, here of a model in a model."""
    seen = keras.Sequential([keras.Input(backbone.input_shape[1:]), keras.layers.Rescaling(2.0, -1), backbone])
    model = keras.Sequential([seen, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)])
    model.layers[-1].set_weights([np.full((16, classes), 9.0), np.full(classes, 10.0)])
    return model


@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('name', ['whole.weights.h5', 'whole.h5'])
def test_a_backbone_inside_another_model_is_found_with_its_head(tmp_path, name, frozen):
    backbone = filled_backbone()
    backbone.trainable = not frozen
    model = inside(backbone, classes=3)
    model.save_weights(tmp_path / name) if 'weights' in name else model.save(tmp_path / name)
    restored_model, report = restored(tmp_path / name, fine_tune=False)
    for expected, found in zip(backbone.get_weights(), restored_model.get_layer('backbone').get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    kernel, bias = restored_model.get_layer('head').get_weights()
    assert (kernel[:, 1:] == 9).all() and (bias[1:] == 10).all()
    assert report.missing == [] and report.head == 'restored, 3 outputs'
    assert restored(tmp_path / name)[1].left_over == ['dense']


def test_of_two_networks_in_a_file_the_one_that_fits_is_taken(tmp_path):
    backbone = filled_backbone()
    other = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(5, 3), keras.layers.BatchNormalization()])
    pixels = keras.Input((16, 16, 3))
    both = [keras.layers.GlobalAveragePooling2D()(each(pixels)) for each in (other, keras.Model(
        backbone.input, backbone.output))]
    keras.Model(pixels, keras.layers.Concatenate()(both)).save_weights(tmp_path / 'both.weights.h5')
    model, report = restored(tmp_path / 'both.weights.h5')
    np.testing.assert_array_equal(model.get_layer('backbone').get_weights()[0], backbone.get_weights()[0])
    assert report.left_over == ['sequential/batch_normalization', 'sequential/conv2d']


def test_a_file_of_another_network_is_refused_with_both_shapes(tmp_path):
    other = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(5, 3)])
    other.save_weights(tmp_path / 'other.weights.h5')
    with pytest.raises(Error, match=r'first_conv \(needs \(3, 3, 3, 8\), \(8,\); the file has \(3, 3, 3, 5\)'):
        restored(tmp_path / 'other.weights.h5')


def test_a_backbone_alone_cannot_be_used_without_fine_tune(tmp_path):
    filled_backbone().save_weights(tmp_path / 'toy.weights.h5')
    with pytest.raises(Error, match='--fine_tune'):
        restored(tmp_path / 'toy.weights.h5', fine_tune=False)




# ImageNet -------------------------------------------------------------------------------------------------------------


def test_offline_the_error_names_the_file_and_the_way_out(data, tmp_path, monkeypatch, capfd):
    from keras.src.applications import mobilenet
    from keras.src.utils import file_utils
    monkeypatch.setattr(file_utils.config, 'keras_home', lambda: str(tmp_path))
    monkeypatch.setattr(mobilenet, 'BASE_WEIGHT_PATH', 'http://127.0.0.1:9/weights/')
    assert restart(data, tmp_path / 'run', '--model=mobilenet', '--width=0.25', '--image_size=128',
                   '--pretrained=imagenet', '--fine_tune') == 1
    err = capfd.readouterr().err
    assert '--pretrained=PATH' in err and '--pretrained=sample' in err
    assert err.splitlines()[-1].count('http://127.0.0.1:9/weights/mobilenet_2_5_128_tf_no_top.h5') == 1
    assert 'Connection refused' in err


@needs_weights
def test_imagenet_weights_are_downloaded_and_used(tmp_path, monkeypatch):
    """The real download code of Keras, with its sha check, against a server on this machine."""
    from keras.src.applications import mobilenet
    from keras.src.utils import file_utils
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(WEIGHTS))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(mobilenet, 'BASE_WEIGHT_PATH', f'http://127.0.0.1:{server.server_port}/')
        monkeypatch.setattr(file_utils.config, 'keras_home', lambda: str(tmp_path))
        planned = recipe.plan(
            {'model': 'mobilenet', 'width': 0.25, 'pretrained': 'imagenet', 'fine_tune': True}, None, 10)
        source = pretrained.read(planned)
        server.shutdown()
    assert (tmp_path / 'models/mobilenet_2_5_224_tf_no_top.h5').exists()
    stored = weights.read(WEIGHTS / 'mobilenet_2_5_224_tf_no_top.h5')
    for name, arrays in stored.layers.items():
        np.testing.assert_array_equal(source.weights.layers[name][0], arrays[0])


@needs_weights
@pytest.mark.parametrize(('model', 'file', 'typed'), [
    ('mobilenet_v2', 'mobilenet_v2_0.35_224_no_top.weights.h5', {'width': 0.35}),
    ('mobilenet', 'mobilenet_2_5_224_tf_no_top.h5', {'width': 0.25}),
])
def test_published_files_fit_to_the_last_tensor(model, file, typed):
    planned = recipe.plan({'model': model, 'pretrained': str(WEIGHTS / file), 'fine_tune': True, **typed}, None, 10)
    built = build_model(planned, 3)
    report = pretrained.restore(built, pretrained.read(planned), ('background', 'a', 'b'), True)
    assert report.missing == [] and report.left_over == []


@needs_weights
@needs_flowers
@pytest.mark.slow
def test_a_published_head_knows_a_daisy(tmp_path):
    from finetune.pictures.views import decode, view
    labels = ['background', *(f'class {i}' for i in range(1000))]
    labels[1 + 985] = 'daisy'
    file = WEIGHTS / 'mobilenet_v2_1.0_224_with_top.weights.h5'
    planned = recipe.plan({'model': 'mobilenet_v2', 'pretrained': str(file)}, None, 10)
    model = build_model(planned, 1001)
    pretrained.restore(model, pretrained.read(planned), labels, False)
    photos = sorted((FLOWERS / 'daisy').iterdir())[:20]
    views = np.stack([view(decode(photo.read_bytes()), 224, 0.875) for photo in photos])
    answers = [labels[i] for i in np.argmax(model(views, training=False), axis=1)]
    assert answers.count('daisy') >= 16


def test_the_sample_backbone_fits_its_recipe():
    typed = {'pretrained': 'sample', 'fine_tune': True}
    planned = recipe.plan(typed, pretrained.network(typed), 10)
    assert (planned.model, planned.width, planned.image_size) == ('mobilenet_v2', 0.35, 96)
    model = build_model(planned, 3)
    report = pretrained.restore(model, pretrained.read(planned), ('background', 'a', 'b'), True)
    assert report.missing == [] and report.left_over == [] and report.zeros == []
    assert sum(file.stat().st_size for file in pretrained.SAMPLE.iterdir()) < 2 * 2**20


def test_every_network_takes_pixels_between_0_and_1():
    """A grey picture reaches each network as what its own preprocess_input makes of it."""
    grey = np.full((1, 4, 4, 3), 100, np.float32)
    modules = {'inception_v3': 'inception_v3', 'resnet50': 'resnet', 'densenet121': 'densenet', 'vgg16': 'vgg16',
               'mobilenet_v2': 'mobilenet_v2', 'resnet50_v2': 'resnet_v2', 'efficientnet_v2_b0': 'efficientnet_v2',
               'convnext_tiny': 'convnext', 'mobilenet_v3_small': 'mobilenet_v3', 'xception': 'xception',
               'nasnet_mobile': 'nasnet', 'inception_resnet_v2': 'inception_resnet_v2', 'mobilenet': 'mobilenet'}
    for name, module in modules.items():
        pixels = zoo.NETS[name].pixels
        ours = classifier.layers.PixelRange(pixels.scale, pixels.offset, pixels.bgr)(grey / 255)
        theirs = getattr(keras.applications, module).preprocess_input(grey.copy())
        np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=name)


@pytest.mark.parametrize('feature_layers', [('right',), ('right', 'last')])
def test_the_beginning_of_a_network_gets_its_own_weights_from_a_file_of_all(monkeypatch, tmp_path, feature_layers):
    """Keras 3 files number layers of a kind; without `left`, `right` would be the second convolution instead."""
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.branching, 16, zoo.MINUS_ONE_TO_ONE))
    classifier.start_afresh(seed=5)
    stored = zoo.backbone('toy', 16)
    stored.save_weights(tmp_path / 'all.weights.h5')
    classifier.start_afresh(seed=6)
    model = classifier.build('toy', 3, image_size=16, feature_layers=feature_layers)
    source = pretrained.Source('all', weights.read(tmp_path / 'all.weights.h5'))
    report = pretrained.restore(model, source, ('background', 'a', 'b'), fine_tune=True)
    for layer in model.get_layer('backbone').layers:
        for ours, theirs in zip(layer.get_weights(), stored.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert bool(report.left_over) == (feature_layers == ('right',))
