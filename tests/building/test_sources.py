"""MNIST as CSV, CIFAR-10's binary batches, datasets of tensorflow-datasets: what becomes of them in records."""

import gzip
import importlib.util
import json
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from finetune import build
from finetune.console.lazy import tf
from finetune.pictures.views import decode
from finetune.records import dataset
from tests import shared

SHAPES = {'mnist': (28, 28), 'cifar': (32, 32, 3)}
needs_tfds = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('tensorflow_datasets', 'importlib_resources'))),
    reason="the extra 'tfds' is not installed")


def build_from(source: str, train: Path, output: Path, *more: str, code: int = 0) -> None:
    flags = [f'--source={source}', f'--train_directory={train}', f'--output_directory={output}', *more]
    assert build.main(flags) == code


def read(output: Path, split: str = 'train') -> dict[str, tuple]:
    """By file name: label, format, the decoded pixels."""
    found = {}
    for serialized in tf.data.TFRecordDataset(dataset.open_records(output).paths(split)).as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        encoded = features['image/encoded'].bytes_list.value[0]
        found[features['image/filename'].bytes_list.value[0].decode()] = (
            features['image/class/label'].int64_list.value[0], features['image/format'].bytes_list.value[0],
            decode(encoded).numpy())
    return found


def noise(count: int, kind: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPES[kind]), np.uint8)


def csv_lines(pictures: np.ndarray, labels) -> list[str]:
    return [','.join(map(str, [label, *picture.ravel()])) for picture, label in zip(pictures, labels, strict=True)]


def batch_bytes(pictures: np.ndarray, labels) -> bytes:
    return b''.join(bytes([label]) + picture.transpose(2, 0, 1).tobytes()
                    for picture, label in zip(pictures, labels, strict=True))


# ---- MNIST as CSV ----


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('header', [False, True])
@pytest.mark.parametrize('newline', ['\n', '\r\n'])
def test_every_row_is_stored_without_loss_with_digit_k_as_label_k_plus_1(tmp_path, compressed, header, newline):
    pictures, digits = noise(12, 'mnist'), [0, 9, *range(10)]
    lines = ['label,' + ','.join(f'{i}x{j}' for i in range(28) for j in range(28))] * header
    text = newline.join([*lines, *csv_lines(pictures, digits), '']).encode()
    path = tmp_path / ('train.csv.gz' if compressed else 'train.csv')
    path.write_bytes(gzip.compress(text) if compressed else text)
    build_from('mnist_csv', path, tmp_path / 'out', '--validation_percent=0')
    stored = read(tmp_path / 'out')
    for line, (picture, digit) in enumerate(zip(pictures, digits, strict=True), 1 + header):
        label, format_, pixels = stored[f'{digit}/{path.name}:{line}']
        assert (label, format_) == (digit + 1, b'PNG')
        np.testing.assert_array_equal(pixels, np.repeat(picture[..., None], 3, axis=-1))
    opened = dataset.open_records(tmp_path / 'out')
    assert opened.labels == ('background', *'0123456789') and opened.format == 'PNG'
    assert json.loads((tmp_path / 'out/dataset.json').read_text())['stored_by']['source'] == 'mnist_csv'


GOOD = csv_lines(noise(3, 'mnist'), [1, 2, 3])


@pytest.mark.parametrize(('bad', 'sentence'), [
    (GOOD[0].rpartition(',')[0], 'line 2 has 784 values'),
    (GOOD[0] + ',0', 'line 2 has 786 values'),
    ('-' + GOOD[0], 'line 2 has label -1, expected 0 to 9'),
    (GOOD[0].rpartition(',')[0] + ',256', 'line 2 has a value'),
    (GOOD[0].rpartition(',')[0] + ',-1', 'line 2 has a value'),
    (GOOD[0].rpartition(',')[0] + ',0.5', 'line 2 has a value'),
    ('10' + GOOD[0][1:], 'line 2 has label 10, expected 0 to 9'),
    ('cat' + GOOD[0][1:], 'line 2 has a value'),
])
def test_a_bad_row_is_an_error_with_file_and_line(tmp_path, capsys, bad, sentence):
    (tmp_path / 'train.csv').write_text('\n'.join([GOOD[0], bad, GOOD[1]]))
    build_from('mnist_csv', tmp_path / 'train.csv', tmp_path / 'out', code=1)
    assert f'{tmp_path}/train.csv {sentence}' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('bad', ['-' + GOOD[0], GOOD[0][0] + '.0' + GOOD[0][1:]])
def test_a_first_row_that_begins_with_a_number_is_a_picture_and_no_header(tmp_path, capsys, bad):
    (tmp_path / 'train.csv').write_text('\n'.join([bad, *GOOD]))
    build_from('mnist_csv', tmp_path / 'train.csv', tmp_path / 'out', code=1)
    assert f'{tmp_path}/train.csv line 1 has' in capsys.readouterr().err


def test_a_byte_order_mark_costs_no_picture(tmp_path):
    (tmp_path / 'train.csv').write_text('\n'.join(GOOD), encoding='utf-8-sig')
    build_from('mnist_csv', tmp_path / 'train.csv', tmp_path / 'out', '--validation_percent=0')
    assert dataset.open_records(tmp_path / 'out').split('train').records == 3


def test_a_compressed_file_that_is_cut_short_is_an_error_and_no_smaller_dataset(tmp_path, capsys):
    whole = gzip.compress('\n'.join(csv_lines(noise(40, 'mnist'), [1] * 40)).encode())
    (tmp_path / 'train.csv.gz').write_bytes(whole[:len(whole) // 2])
    build_from('mnist_csv', tmp_path / 'train.csv.gz', tmp_path / 'out', code=1)
    assert 'train.csv.gz is cut short or damaged after line' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'kind'), [('train-images-idx3-ubyte', 3), ('train-labels.idx1-ubyte.gz', 1)])
def test_the_files_in_which_mnist_is_published_are_named_and_the_way_out_with_them(tmp_path, capsys, name, kind):
    """They are no text, of which line 2 could be mended."""
    data = bytes([0, 0, 8, kind]) + struct.pack('>' + kind * 'I', *(60, 28, 28)[:kind]) + b'\n,' * 30_000
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith('gz') else data)
    build_from('mnist_csv', tmp_path / name, tmp_path / 'out', code=1)
    assert f'{tmp_path}/{name} is an IDX file' in (told := capsys.readouterr().err)
    assert '.csv.gz' in told and '--source=tfds' in told and 'Mend' not in told


def test_any_other_file_that_is_no_text_is_not_to_be_mended_line_by_line(tmp_path, capsys):
    np.savez(tmp_path / 'train.csv', noise(3, 'mnist'))
    build_from('mnist_csv', tmp_path / 'train.csv.npz', tmp_path / 'out', code=1)
    assert 'train.csv.npz is no text file' in capsys.readouterr().err


def test_names_for_the_numbers_come_from_a_labels_file(tmp_path):
    (tmp_path / 'train.csv').write_text('\n'.join(csv_lines(noise(4, 'mnist'), [0, 1, 2, 2])))
    (tmp_path / 'labels.txt').write_text('shirt\ncoat\nbag\n')
    build_from('mnist_csv', tmp_path / 'train.csv', tmp_path / 'out', f'--labels_file={tmp_path}/labels.txt',
               '--validation_percent=0')
    opened = dataset.open_records(tmp_path / 'out')
    assert opened.labels == ('background', 'shirt', 'coat', 'bag')
    assert opened.split('train').per_class == (0, 1, 1, 2)


# ---- CIFAR-10 ----


@pytest.fixture
def batches(tmp_path):
    """The official layout, with other numbers of records."""
    folder = tmp_path / 'cifar-10-batches-bin'
    folder.mkdir()
    for name, count in {'data_batch_1': 7, 'data_batch_2': 5, 'test_batch': 4}.items():
        labels = [i % 10 for i in range(count)]
        (folder / f'{name}.bin').write_bytes(batch_bytes(noise(count, 'cifar', len(name) + count), labels))
    return folder


def test_every_record_of_every_batch_is_stored_without_loss_in_the_split_of_its_file(tmp_path, batches):
    build_from('cifar10', batches, tmp_path / 'out', f'--validation_directory={batches}')
    train, test = read(tmp_path / 'out'), read(tmp_path / 'out', 'validation')
    assert (len(train), len(test)) == (12, 4)
    pictures = noise(5, 'cifar', len('data_batch_2') + 5)
    label, format_, pixels = train['cat/data_batch_2.bin:3']
    assert (label, format_) == (4, b'PNG')
    np.testing.assert_array_equal(pixels, pictures[3])
    assert dataset.open_records(tmp_path / 'out').labels[1:4] == ('airplane', 'automobile', 'bird')


def test_the_same_batches_give_the_same_bytes_and_are_shuffled(tmp_path, batches):
    for name in ('a', 'b'):
        build_from('cifar10', batches, tmp_path / name, '--validation_percent=0')
    assert [(tmp_path / name / 'train-00000-of-00002').read_bytes() for name in 'a'] == [
        (tmp_path / name / 'train-00000-of-00002').read_bytes() for name in 'b']
    labels = [label for label, _, _ in read(tmp_path / 'a').values()]
    assert labels != [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5]


def test_the_next_command_is_a_training_from_scratch(tmp_path, batches, capsys):
    """What learned from photos looks at 224 pixels: it is not what to begin with on 32."""
    build_from('cifar10', batches, tmp_path / 'records')
    told = capsys.readouterr().err
    assert '--recipe=densenet_bc_cifar10' in told and 'imagenet' not in told


def test_the_official_test_batch_may_stay_the_test_set(tmp_path, batches):
    build_from('cifar10', batches, tmp_path / 'out', f'--test_directory={batches}', '--validation_percent=0')
    assert {name: split.records for name, split in dataset.open_records(tmp_path / 'out').splits.items()} == {
        'train': 12, 'test': 4}


def test_the_official_test_file_of_mnist_may_stay_the_test_set(tmp_path):
    (tmp_path / 'csv').mkdir()
    for name, count in (('train', 30), ('test', 4)):
        lines = csv_lines(noise(count, 'mnist', count), [i % 3 for i in range(count)])
        (tmp_path / 'csv' / f'mnist_{name}.csv').write_text('\n'.join(lines))
    build_from('mnist_csv', tmp_path / 'csv', tmp_path / 'out', f'--test_directory={tmp_path}/csv')
    build_from('mnist_csv', tmp_path / 'csv', tmp_path / 'by_content', '--test_percent=10')
    assert {name: split.records for name, split in dataset.open_records(tmp_path / 'out').splits.items()} == {
        'train': 24, 'validation': 6, 'test': 4}
    assert {name: split.records for name, split in dataset.open_records(tmp_path / 'by_content').splits.items()} == {
        'train': 21, 'validation': 6, 'test': 3}


@pytest.mark.parametrize(('content', 'sentence'), [
    (batch_bytes(noise(3, 'cifar'), [1, 2, 3])[:-1], 'the record at byte 6146 is cut short'),
    (b'', 'the record at byte 0 is cut short'),
    (batch_bytes(noise(3, 'cifar'), [1, 10, 3]), 'the record at byte 3073 has label 10, expected 0 to 9'),
    (pickle.dumps({b'labels': [1]}), 'pickles, which can run any program'),
])
def test_a_bad_batch_is_an_error_with_file_and_offset(tmp_path, capsys, content, sentence):
    (tmp_path / 'batch.bin').write_bytes(content)
    build_from('cifar10', tmp_path / 'batch.bin', tmp_path / 'out', code=1)
    told = capsys.readouterr().err
    assert f'{tmp_path}/batch.bin' in told and sentence in told


def test_the_pickled_version_is_refused_and_the_binary_one_named(tmp_path, capsys):
    (tmp_path / 'cifar-10-batches-py').mkdir()
    (tmp_path / 'cifar-10-batches-py' / 'data_batch_1').write_bytes(pickle.dumps({b'labels': [1]}))
    build_from('cifar10', tmp_path / 'cifar-10-batches-py', tmp_path / 'out', code=1)
    told = capsys.readouterr().err
    assert 'pickles, which can run any program' in told and 'cifar-10-binary.tar.gz' in told


# ---- tensorflow-datasets ----


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Tiny datasets that tensorflow-datasets itself wrote: PNGs, JPEGs, and one of three splits."""
    import tensorflow_datasets as tfds
    directory = tmp_path_factory.mktemp('tfds')
    of_two = {'train': 6, 'test': 3}
    for name, encoding, size, counts in (('toy_digits', 'png', 8, of_two), ('toy_photos', 'jpeg', 40, of_two),
                                         ('toy_thirds', 'png', 8, {'train': 6, 'test': 3, 'validation': 2})):
        features = tfds.features.FeaturesDict({
            'image': tfds.features.Image(shape=(size, size, 3), encoding_format=encoding),
            'label': tfds.features.ClassLabel(names=['ant', 'bee'])})
        pictures = {split: np.random.default_rng(len(split)).integers(0, 256, (count, size, size, 3), np.uint8)
                    for split, count in counts.items()}
        tfds.dataset_builders.store_as_tfds_dataset(
            name, '1.0.0', data_dir=directory, features=features, disable_shuffling=True,
            split_datasets={split: [(i, {'image': picture, 'label': i % 2}) for i, picture in enumerate(found)]
                            for split, found in pictures.items()})
        np.savez(directory / name, **pictures)
    return directory


def build_tfds(directory: Path, output: Path, *more: str, code: int = 0) -> None:
    assert build.main(['--source=tfds', f'--tfds_dir={directory}', f'--output_directory={output}', *more]) == code


@needs_tfds
def test_a_prepared_dataset_becomes_records_with_its_own_splits_and_class_names(prepared, tmp_path):
    build_tfds(prepared, tmp_path / 'out', '--tfds=toy_digits')
    opened = dataset.open_records(tmp_path / 'out')
    assert (opened.labels, opened.format) == (('background', 'ant', 'bee'), 'PNG')
    assert {name: split.per_class for name, split in opened.splits.items()} == {
        'train': (0, 3, 3), 'validation': (0, 2, 1)}
    pictures = np.load(prepared / 'toy_digits.npz')
    for split, theirs in {'train': 'train', 'validation': 'test'}.items():
        found = read(tmp_path / 'out', split)
        assert sorted(pixels.tobytes() for _, _, pixels in found.values()) == sorted(
            picture.tobytes() for picture in pictures[theirs])
        assert all(name.startswith(f'{opened.labels[label]}/{theirs}:') for name, (label, _, _) in found.items())


@needs_tfds
@pytest.mark.parametrize(('flags', 'expected'), [
    (['--tfds=toy_thirds'], {'train': ('train', 6), 'validation': ('validation', 2), 'test': ('test', 3)}),
    (['--tfds=toy_thirds', '--tfds_splits=train,validation'], {'train': ('train', 6), 'validation': ('validation', 2)}),
    (['--tfds=toy_thirds', '--tfds_splits=train,test,validation'],
     {'train': ('train', 6), 'validation': ('test', 3), 'test': ('validation', 2)}),
    (['--tfds=toy_digits', '--tfds_splits=train,,test', '--validation_percent=0'],
     {'train': ('train', 6), 'test': ('test', 3)}),
    (['--tfds=toy_digits', '--tfds_splits=train,test', '--test_percent=20'],
     {'train': ('train', 4), 'validation': ('test', 3), 'test': ('train', 2)})])
def test_a_prepared_test_split_is_the_test_set_where_another_one_validates(prepared, tmp_path, flags, expected):
    build_tfds(prepared, tmp_path / 'out', *flags)
    opened = dataset.open_records(tmp_path / 'out')
    assert {name: split.records for name, split in opened.splits.items()} == {
        name: count for name, (_, count) in expected.items()}
    for name, (theirs, _) in expected.items():
        assert all(f'/{theirs}:' in filename for filename in read(tmp_path / 'out', name))


@needs_tfds
def test_photos_stay_the_jpegs_that_they_are(prepared, tmp_path):
    build_tfds(prepared, tmp_path / 'out', '--tfds=toy_photos', '--tfds_splits=train', '--validation_percent=0')
    opened = dataset.open_records(tmp_path / 'out')
    assert opened.format == 'JPEG' and list(opened.splits) == ['train'] and opened.split('train').records == 6


@needs_tfds
@pytest.mark.parametrize(('flags', 'code', 'sentence'), [
    (['--tfds=toy_dgits'], 1, 'it holds toy_digits, toy_photos, toy_thirds'),
    (['--tfds=toy_digits', '--tfds_splits=train,validation'], 1, 'has no split validation; it has'),
    (['--tfds=toy_digits', '--tfds_splits=train,test,more,extra'], 2, 'TRAIN,VALIDATION,TEST'),
    (['--tfds=toy_digits', '--tfds_splits=,test'], 2, 'TRAIN,VALIDATION,TEST'),
    (['--tfds=toy_thirds', '--test_percent=10'], 2, '--tfds_splits=train,validation'),
    (['--tfds=toy_thirds', '--test_directory=T'], 2, '--test_directory has nothing to do with --source=tfds'),
    (['--tfds=toy_digits', '--validation_percent=10'], 2, '--tfds_splits=train'),
    ([], 2, '--tfds is missing'),
])
def test_what_tensorflow_datasets_does_not_have_is_answered_with_what_it_has(
        prepared, tmp_path, capsys, flags, code, sentence):
    build_tfds(prepared, tmp_path / 'out', *flags, code=code)
    assert sentence in capsys.readouterr().err


# ---- all of them ----


@pytest.mark.parametrize(('source', 'flag'), [
    ('cifar10', '--short_side=20'), ('mnist_csv', '--recursive'), ('folders', '--tfds=mnist'),
    ('cifar10', '--labels_file=l'), ('mnist_csv', '--num_threads=2')])
def test_a_flag_that_says_nothing_about_the_source_is_bad_usage(tmp_path, capsys, source, flag):
    build_from(source, tmp_path, tmp_path / 'out', flag, code=2)
    assert f'has nothing to do with --source={source}' in capsys.readouterr().err


@shared.needs_cifar
def test_the_cifar_pictures_of_this_machine_are_all_there(tmp_path):
    build_from('cifar10', shared.CIFAR, tmp_path / 'out', f'--validation_directory={shared.CIFAR}')
    opened = dataset.open_records(tmp_path / 'out')
    assert (opened.split('train').records, opened.split('validation').records) == (3500, 500)


@shared.needs_mnist
@pytest.mark.slow
def test_60000_rows_become_records_in_less_than_a_minute(tmp_path):
    started = time.process_time()
    build_from('mnist_csv', shared.MNIST, tmp_path / 'out', f'--validation_directory={shared.MNIST}')
    assert time.process_time() - started < 60
    opened = dataset.open_records(tmp_path / 'out')
    assert (opened.split('train').records, opened.split('validation').records) == (60_000, 10_000)
    assert opened.split('train').per_class == (0, 5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
