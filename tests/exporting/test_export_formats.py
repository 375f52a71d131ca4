"""`finetune export`, in every format: the same answers as `finetune predict`, from files that need nothing of this."""

import dataclasses
import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from finetune import export, train
from finetune.console.errors import Error
from finetune.console.lazy import keras, tf
from finetune.exporting import formats, network, onnx, orientation, pixels, savedmodel, verification
from finetune.pictures import gate, views
from finetune.runs.run import Run
from tests import toy, toy_records, toy_run
from tests.toy_export import exported, made, predicted, read_by_others

INSTALLED = [name for name, format in formats.FORMATS.items() if all(map(importlib.util.find_spec, format.needs))]
of_every_format = pytest.mark.parametrize('format', [
    pytest.param(name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f'needs {", ".join(format.needs)}'))
    for name, format in formats.FORMATS.items()])


@pytest.fixture
def run(tmp_path):
    return made(tmp_path / 'run')


@pytest.mark.slow
@of_every_format
def test_the_code_of_the_readme_answers_as_predict_does_unknown_included(run, tmp_path, format, capsys):
    directory = exported(run, tmp_path, f'--format={format}', '--keep=0.5')
    paths = [tmp_path / f'{seed}.jpg' for seed in range(6)]
    for seed, path in enumerate(paths):
        path.write_bytes(toy_run.picture(seed) if seed % 2 else toy.encoded(toy.picture(seed, (90, 60))))
    found = read_by_others(directory, format, *paths)
    expected = predicted(run, capsys, '--keep=0.5', *paths)
    for (path, label, likely, is_unknown), answer in zip(found, expected, strict=True):
        best = answer['answers'][0]
        assert (path, label, bool(is_unknown)) == (answer['file'], best['label'], answer['unknown'])
        assert float(likely) == pytest.approx(best['probability'], abs=1e-5)
    assert len({answer['unknown'] for answer in expected}) == 2  # Else nothing was shown.


@pytest.mark.slow
@of_every_format
def test_what_is_told_of_an_export_is_what_is_there(run, tmp_path, format, capsys):
    data = toy_records.write(tmp_path / 'records', labels=toy_run.LABELS)
    directory = exported(run, tmp_path, f'--format={format}', f'--data_dir={data}')
    facts = json.loads((directory / 'model.json').read_text())
    told = facts['formats'][format]
    assert {path.name for path in directory.iterdir()} == {'README.md', 'labels.txt', 'model.json', format}
    assert facts['treatment'] == run.records['treatment'] == {'max_side': 299}
    assert facts['labels'] == (directory / 'labels.txt').read_text().splitlines() == ['blue', 'green', 'red']
    assert {name for name in told['files']} == {
        str(path.relative_to(directory)) for path in (directory / format).rglob('*') if path.is_file()}
    assert told['verification']['pictures'] == told['verification']['same_labels'] == 7
    assert told['verification']['of_the_export'] == told['verification']['of_the_run']
    shown = capsys.readouterr().out
    assert format in shown and '7/7' in shown and shown.strip() in (directory / 'README.md').read_text()


KINDS = {
    'a head on kept features': ('--freeze_backbone',),
    'the last blocks': ('--trainable_from=last_conv', '--epochs=1', '--batch_size=8'),
    'two feature layers': ('--freeze_backbone', '--feature_layers=first_bn,last_conv'),
    'mixed precision': ('--mixed_precision', '--epochs=1', '--batch_size=8'),
    'pixels normalised by a copy of weights': ('--model=toy_normalizing', '--freeze_backbone'),
    'no trust': ('--epochs=1', '--batch_size=8', '--moving_average_decay=0.9'),
}


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_whatever_was_trained_is_exported(tmp_path, kind):
    data = toy_records.write(tmp_path / 'records', train=30, validation=0 if kind == 'no trust' else 12)
    train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/run', '--model=toy', '--image_size=16', *KINDS[kind]])
    subset = 'train' if kind == 'no trust' else 'validation'
    directory = exported(Run(tmp_path / 'run'), tmp_path, f'--format={",".join(INSTALLED)}', f'--data_dir={data}',
                         f'--subset={subset}')
    for told in json.loads((directory / 'model.json').read_text())['formats'].values():
        assert ('unknown' in told['outputs']) == (kind != 'no trust')
        assert 'evidence' in told['outputs']
        assert told['verification']['of_the_export'] == told['verification']['of_the_run']


@of_every_format
@pytest.mark.slow
def test_a_background_that_was_trained_is_an_answer_and_never_unknown(tmp_path, format, capsys):
    run = made(tmp_path / 'run', scores=np.full(99, 2, np.float32), per_class=(9, 9, 9, 9))
    paths = [tmp_path / f'{seed}.jpg' for seed in range(12)]
    for seed, path in enumerate(paths):
        path.write_bytes(toy_run.picture(seed, 20 + seed, 40 - seed))
    expected = predicted(run, capsys, *paths)
    found = read_by_others(exported(run, tmp_path, f'--format={format}'), format, *paths)
    assert [(label, bool(is_unknown)) for _, label, _, is_unknown in found] == [
        (answer['answers'][0]['label'], answer['unknown']) for answer in expected]
    assert {answer['unknown'] for answer in expected} == {answer['answers'][0]['label'] != 'background'
                                                          for answer in expected}


@pytest.mark.slow
def test_lossless_records_are_answered_too(tmp_path):
    """By a classic that looks at each picture's own pixels."""
    data = toy_records.write(tmp_path / 'records', format='PNG')
    run = toy_run.start_run(tmp_path / 'run', labels=toy_records.LABELS, model='resnet20_cifar')
    toy_run.save_checkpoint(run, step=3)
    directory = exported(run, tmp_path, f'--data_dir={data}')
    told = json.loads((directory / 'model.json').read_text())['formats']['savedmodel']
    assert told['verification']['same_labels'] == 7


@pytest.mark.slow
def test_a_network_that_has_left_all_places_behind_shows_no_evidence(tmp_path):
    run = toy_run.start_run(tmp_path / 'run', model='mnist_cnn', image_size=28, width=0.1)
    toy_run.save_checkpoint(run, step=3)
    told = json.loads((exported(run, tmp_path) / 'model.json').read_text())['formats']['savedmodel']
    assert 'evidence' not in told['outputs'] and told['verification']['same_labels'] == 9


NETWORKS = {
    'mobilenet_v2': ('--width=0.35', '--image_size=32', '--feature_layers=block_12,block_16'),
    'efficientnet_b0': ('--image_size=32',),
    'resnet20_cifar': ('--image_size=32',),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_networks_of_photos_are_exported(tmp_path, name):
    """From random weights, whose outputs are next to nothing until their statistics are those of pictures."""
    data = toy_records.write(tmp_path / 'records', train=24, validation=6)
    assert train.main([f'--data_dir={data}', f'--train_dir={tmp_path}/run', f'--model={name}', *NETWORKS[name],
                       '--epochs=1', '--batch_size=8', '--batch_norm_momentum=0.5', '--moving_average_decay=0']) == 0
    exported(Run(tmp_path / 'run'), tmp_path, f'--format={",".join(INSTALLED)}', f'--data_dir={data}')


def test_a_network_that_onnx_has_no_operations_for_is_refused(tmp_path):
    pytest.importorskip('tf2onnx')
    images = keras.Input((16, 16, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.ops.gelu(images, approximate=False))
    unconverted = network.Network(keras.Model(images, [outputs, outputs]), None, {}, 16, 1.0, {1: 'blue'}, None, 0.95)
    with pytest.raises(Error, match='computes with Erfc'):
        onnx.write(unconverted, tmp_path)


# What is written --------------------------------------------------------------------------------------------------


def test_every_weight_is_saved_once(tmp_path):
    run = made(tmp_path / 'run')
    loaded = run.load(in_float32=True)
    savedmodel.write(network.of(run, loaded, 0.95), tmp_path)
    stored = tf.train.list_variables(str(tmp_path / 'savedmodel/1/variables/variables'))
    weights = [shape for name, shape in stored if 'OBJECT_GRAPH' not in name]
    assert len(weights) == len(loaded.model.weights)


@pytest.mark.slow
@pytest.mark.parametrize('of, expected', [('logits', 'a logit differs'), ('evidence', 'evidence differs')])
def test_an_answer_that_changed_is_not_published(run, tmp_path, monkeypatch, capsys, of, expected):
    original = verification.Trial.answers

    def spoilt(trial):
        found, milliseconds = original(trial)
        return dataclasses.replace(found, **{of: getattr(found, of)[..., ::-1]}), milliseconds

    monkeypatch.setattr(verification.Trial, 'answers', spoilt)
    assert export.main([str(run.directory), f'--output={tmp_path}/export']) == 3
    told = capsys.readouterr().err
    assert 'savedmodel' in told and 'is not written' in told and expected in told
    assert not (tmp_path / 'export').exists() and not (tmp_path / '.export.partial').exists()


def test_what_cannot_be_read_is_not_published_and_says_why(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(formats, 'client', lambda name: 'import finetune\n')
    assert export.main([str(run.directory), f'--output={tmp_path}/export']) == 1
    assert 'savedmodel that was written cannot be used: ModuleNotFoundError' in capsys.readouterr().err
    assert not (tmp_path / 'export').exists()


def test_a_trial_that_dies_on_the_way_is_told_and_leaves_no_process(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(formats, 'client', lambda name: 'import os\nos._exit(7)\n')
    begun, original = [], verification.Trial.end
    monkeypatch.setattr(verification.Trial, 'end', lambda trial: (begun.append(trial), original(trial)))
    assert export.main([str(run.directory), f'--output={tmp_path}/export']) == 1
    assert 'savedmodel that was written cannot be used' in capsys.readouterr().err
    assert [trial._process.poll() for trial in begun] == [7]


@pytest.mark.parametrize('flags, expected, code', [
    ((), 'one run or project is expected', 2),
    (('RUN',), '--output is missing', 2),
    (('RUN', '--output=x', '--format=keras'), 'expected one or several of savedmodel', 2),
    (('RUN', '--output=x', '--checkpoint=new'), '--checkpoint=new is not understood', 2),
    (('nowhere', '--output=x'), 'nowhere is not a run', 1),
])
def test_a_command_line_that_cannot_be_carried_out_says_why(flags, expected, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(list(flags)) == code
    assert expected in capsys.readouterr().err


def test_nothing_that_is_there_is_replaced(run, tmp_path, capsys):
    (tmp_path / 'export').mkdir()
    (tmp_path / 'export/thesis.txt').write_text('mine')
    assert export.main([str(run.directory), f'--output={tmp_path}/export']) == 1
    assert 'is there already' in capsys.readouterr().err
    assert (tmp_path / 'export/thesis.txt').read_text() == 'mine'


def test_a_package_that_is_not_there_is_told_before_the_work(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert export.main(['run', '--output=x', '--format=openvino']) == 2
    assert 'pip install openvino' in capsys.readouterr().err


# Pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('crop_fraction', [1.0, 0.875, 0.9, 0.7])
def test_products_of_matrices_see_what_training_sees(crop_fraction):
    for height, width in ((20, 24), (31, 45), (7, 9), (300, 500), (33, 400)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        expected = views.view(image, 32, crop_fraction).numpy()
        found = pixels.views_by_products(image[None], 32, crop_fraction).numpy()[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def with_exif(number: int, endian: str = '<', image: Image.Image | None = None) -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010E], exif[0x0112], exif[0x0131] = 'a description', number, 'a program'
    return toy.encoded(image or toy.picture(1, (48, 32)), quality=95, exif=exif)


@pytest.mark.parametrize('endian', ['<', '>'])
@pytest.mark.parametrize('number', range(10))
def test_the_orientation_of_a_photo_is_found_in_the_graph(number, endian):
    file = with_exif(number, endian)
    expected = number if 1 <= number <= 8 else 1
    assert int(orientation.of_jpeg(tf.io.decode_raw(file, tf.uint8))) == expected


def test_a_photo_without_orientation_or_cut_short_is_upright():
    file = with_exif(6)
    assert int(orientation.of_jpeg(tf.io.decode_raw(toy_run.picture(1), tf.uint8))) == 1
    for length in (2, 3, 4, 5, 12, 20, 30, 40):
        assert int(orientation.of_jpeg(tf.io.decode_raw(file[:length], tf.uint8))) == 1, length
    filled = file[:2] + b'\xff\xff' + file[2:]  # Before a marker there may be any number of FF.
    assert int(orientation.of_jpeg(tf.io.decode_raw(filled, tf.uint8))) == 6



@pytest.mark.parametrize('number', range(1, 9))
def test_a_photo_of_any_orientation_is_seen_upright(number):
    smooth = toy.picture(1, (48, 32)).resize((480, 320), Image.Resampling.BICUBIC)
    assert_seen_as_admitted(with_exif(number, image=smooth))


@pytest.mark.parametrize('mode, kind', [('RGBA', 'PNG'), ('L', 'PNG'), ('P', 'PNG'), ('L', 'JPEG'), ('P', 'GIF')])
def test_files_of_other_kinds_are_seen_as_predict_sees_them(mode, kind):
    image = toy.picture(2, (48, 32)).resize((480, 320), Image.Resampling.BICUBIC)
    if mode == 'RGBA':
        image.putalpha(Image.linear_gradient('L').resize(image.size))
    file = io.BytesIO()
    image.convert(mode).save(file, kind)
    assert_seen_as_admitted(file.getvalue())


def assert_seen_as_admitted(file: bytes) -> None:
    """But for what is lost where the gate makes a JPEG of it."""
    expected = views.view(views.decode(gate.admit(file).encoded), 32, 0.875).numpy()
    found = pixels.views_of_files(tf.constant([file]), 32, 0.875).numpy()[0]
    assert np.abs(found - expected).mean() < 0.01 and np.abs(found - expected).max() < 0.1
