"""Records: what is written is what TensorFlow reads, and nothing damaged or missing is read in silence."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.records import dataset, examples, tfrecord
from tests import toy

LABELS = ('background', 'cat', 'dog')


def write_records(directory: Path, per_shard: tuple[int, ...] = (3, 2), labels=LABELS, picture: bytes = b'') -> Path:
    directory.mkdir(parents=True)
    shards, per_class = [], [0] * len(labels)
    for index, count in enumerate(per_shard):
        writer = dataset.ShardWriter(directory / dataset.shard_name('train', index, len(per_shard)))
        for number in range(count):
            label = 1 + number % (len(labels) - 1)
            per_class[label] += 1
            name = f'{labels[label]}/{index}_{number}.jpg'.encode()
            encoded = picture or toy.encoded(toy.picture(number))
            writer.write(examples.encode_example(encoded, 'JPEG', 24, 32, label, labels[label], name))
        shards.append(writer.close())
    split = dataset.Split('train', sum(per_class), tuple(per_class), tuple(shards))
    write_manifest(directory, dataset.manifest(labels, [split], 'JPEG', {}))
    return directory


def write_manifest(directory: Path, content: dict) -> None:
    (directory / dataset.MANIFEST).write_text(json.dumps(content))


def change_manifest(directory: Path, change) -> None:
    """Changes dataset.json as a careless program would, with a fingerprint that fits."""
    content = json.loads((directory / dataset.MANIFEST).read_text())
    change(content)
    content['fingerprint'] = dataset._fingerprint(content)
    write_manifest(directory, content)


def error(directory: Path) -> str:
    with pytest.raises(Error) as caught:
        dataset.open_records(directory)
    return str(caught.value)


# ---- the bytes ----

FEATURES = st.dictionaries(
    st.text(max_size=9), st.one_of(st.binary(max_size=300), st.integers(0, 2**63 - 1)), min_size=1, max_size=5)


@settings(max_examples=500, deadline=None)
@given(FEATURES)
def test_tensorflow_parses_what_was_encoded(features):
    example = tf.train.Example()
    for key, value in features.items():
        if isinstance(value, bytes):
            example.features.feature[key].bytes_list.value.append(value)
        else:
            example.features.feature[key].int64_list.value.append(value)
    assert tf.train.Example.FromString(tfrecord.encode(features)) == example


def test_a_record_has_the_bytes_that_tensorflow_would_write():
    written = examples.encode_example(bytes(200) * 100, 'JPEG', 480, 640, 1000, 'daisy', b'daisy/\xff.jpg')
    assert tf.train.Example.FromString(written).SerializeToString(deterministic=True) == written


def test_tensorflow_reads_back_every_record(tmp_path):
    contents = [b'', b'a', bytes(range(256)) * 300]
    writer = tfrecord.ShardWriter(tmp_path / 'shard')
    for content in contents:
        writer.write(content)
    shard = writer.close()
    assert list(tf.data.TFRecordDataset(str(tmp_path / 'shard')).as_numpy_iterator()) == contents
    assert (shard.records, shard.bytes) == (3, (tmp_path / 'shard').stat().st_size)


def test_a_record_is_parsed_to_picture_label_and_name(tmp_path):
    opened = dataset.open_records(write_records(tmp_path / 'r'))
    parsed = list(tf.data.TFRecordDataset(opened.paths('train')).map(examples.parse).as_numpy_iterator())
    assert [(int(example['label']), example['filename']) for example in parsed] == [
        (1, b'cat/0_0.jpg'), (2, b'dog/0_1.jpg'), (1, b'cat/0_2.jpg'), (1, b'cat/1_0.jpg'), (2, b'dog/1_1.jpg')]
    assert parsed[0]['encoded'] == toy.encoded(toy.picture(0))


def test_pictures_are_found_again_by_their_place_in_a_split(tmp_path):
    opened = dataset.open_records(write_records(tmp_path / 'r'))
    every = [examples.parse(record)['encoded'].numpy() for record in tf.data.TFRecordDataset(opened.paths('train'))]
    assert examples.encoded_at(opened.paths('train'), {1, 4}) == {1: every[1], 4: every[4]}
    assert examples.encoded_at(opened.paths('train'), ()) == {}


@pytest.mark.parametrize('missing', ['image/encoded', 'image/class/label'])
def test_a_record_without_picture_or_label_is_an_error_and_no_class(missing):
    features = {'image/encoded': b'x', 'image/class/label': 1, 'image/filename': b'a'}
    del features[missing]
    with pytest.raises(tf.errors.InvalidArgumentError, match=missing):
        examples.parse(tfrecord.encode(features))


# ---- what is opened ----


def test_names_and_counts_come_from_the_manifest_and_not_from_the_folder(tmp_path):
    directory = write_records(tmp_path / 'r')
    shutil.copy(directory / 'train-00000-of-00002', directory / 'train-00000-of-00004')  # Of an earlier build.
    opened = dataset.open_records(directory)
    assert opened.paths('train') == [os.fsencode(directory / f'train-0000{index}-of-00002') for index in (0, 1)]
    assert opened.split('train').records == 5
    assert opened.num_classes == 3
    dataset.verify(opened)


def test_the_fingerprint_changes_with_a_label_a_count_or_a_byte(tmp_path):
    variants = [write_records(tmp_path / 'a'), write_records(tmp_path / 'b', per_shard=(2, 3)),
                write_records(tmp_path / 'c', labels=('background', 'cat', 'emu')),
                write_records(tmp_path / 'd', picture=toy.encoded(toy.picture(9)))]
    assert len({dataset.open_records(directory).fingerprint for directory in variants}) == len(variants)


def test_what_is_not_a_directory_of_records_is_named_with_the_way_out(tmp_path):
    assert 'does not exist' in error(tmp_path / 'nothing')
    (tmp_path / 'file').touch()
    assert 'is a file' in error(tmp_path / 'file')
    (tmp_path / 'empty').mkdir()
    assert 'finetune build' in error(tmp_path / 'empty')
    toy.class_folders(tmp_path / 'pictures', {'cat': 1})
    assert f'--train_directory={tmp_path}/pictures' in error(tmp_path / 'pictures')


def test_foreign_and_compressed_tfrecords_are_recognised(tmp_path):
    (tmp_path / 'train-00000-of-00001').write_bytes(b'\x1f\x8b')
    assert 'gzip' in error(tmp_path)
    (tmp_path / 'train-00000-of-00001').write_bytes(b'other')
    assert 'another program' in error(tmp_path)


def test_an_unknown_split_is_answered_with_those_that_there_are(tmp_path):
    with pytest.raises(Error, match=r'no validation pictures; it has train\..*--validation_percent.*--validation_dir'):
        dataset.open_records(write_records(tmp_path / 'b')).split('validation')
    with pytest.raises(Error, match=r'no test pictures; it has train\. .*--test_percent=10, or --test_directory'):
        dataset.open_records(write_records(tmp_path / 'r')).split('test')
    with pytest.raises(Error, match=r'no dev pictures; it has train\. --subset names another split\.$'):
        dataset.open_records(write_records(tmp_path / 'd')).split('dev')


def test_missing_short_and_swapped_shards_are_named_before_the_first_step(tmp_path):
    directory = write_records(tmp_path / 'r', picture=b'few bytes')
    shard = directory / 'train-00001-of-00002'
    whole = shard.read_bytes()
    for length in range(len(whole)):  # Also at the border of a record, where TensorFlow reads on in silence.
        shard.write_bytes(whole[:length])
        assert 'train-00001-of-00002' in error(directory) and 'cut short' in error(directory)
    shard.write_bytes(whole + b'more')
    assert 'another build' in error(directory)
    shard.unlink()
    assert 'train-00001-of-00002 is missing' in error(directory)


def test_verify_names_the_shard_whose_bytes_are_others(tmp_path):
    directory = write_records(tmp_path / 'r', per_shard=(2,), picture=b'few bytes')
    shard, opened = directory / 'train-00000-of-00001', dataset.open_records(directory)
    whole = shard.read_bytes()
    for position in range(0, len(whole), 31):
        shard.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1:])
        with pytest.raises(Error, match='train-00000-of-00001: its sha256 differs'):
            dataset.verify(opened)


@pytest.mark.parametrize(('change', 'expected'), [
    (lambda content: content.update(schema_version=2), 'schema version 2; this program reads 1'),
    (lambda content: content['labels'].pop(), 'out of range'),
    (lambda content: content.update(labels=['cat', 'dog', 'emu']), "'background'"),
    (lambda content: content['splits']['train'].update(records=6), 'do not add up'),
    (lambda content: content['splits'].clear(), 'no pictures'),
    (lambda content: content['splits']['train']['shards'][0].update(name='../r/train-00000-of-00002'), 'missing'),
    (lambda content: content['splits']['train'].pop('shards'), 'not written by this program'),
    (lambda content: content.update(format='TIFF'), "format='TIFF'"),
    (lambda content: content.update(stored_by={'short_side': -1}), 'short_side=-1'),
    (lambda content: content.update(stored_by={'max_pixels': float('inf')}), 'max_pixels=inf'),
    (lambda content: content.update(stored_by={'sixteen_bit_max': 0}), 'sixteen_bit_max=0'),
    (lambda content: content.update(stored_by=[]), 'not written by this program'),
])
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, expected):
    directory = write_records(tmp_path / 'r')
    change_manifest(directory, change)
    assert expected in error(directory)


def test_the_treatment_is_what_the_build_was_told_and_of_older_records_what_they_say(tmp_path):
    directory = write_records(tmp_path / 'r')
    assert dataset.open_records(directory).treatment == {'format': 'JPEG'}
    told = {'max_side': 0, 'short_side': 299, 'max_bytes': 5000, 'max_pixels': 200_000_000,
            'sixteen_bit_max': 4095}
    stored_by = told | {'source': 'folders', 'recursive': True}
    change_manifest(directory, lambda content: content.update(stored_by=stored_by))
    assert dataset.open_records(directory).treatment == {'format': 'JPEG', **told}


def test_what_became_of_the_files_is_told_of_records_that_know_it(tmp_path):
    directory = write_records(tmp_path / 'r')
    opened = dataset.open_records(directory)
    assert dataset.told(opened) == {} and dataset.skipped(opened, 5) == []
    change_manifest(directory, lambda content: content.update(found=9, skipped={'truncated': 2}))
    (directory / dataset.SKIPPED).write_text('file,reason,detail\na.jpg,truncated,x\nb.jpg,truncated,"y, z"\n')
    assert dataset.told(opened) == {'found': 9, 'skipped': {'truncated': 2}}
    assert dataset.skipped(opened, 1) == [{'file': 'a.jpg', 'reason': 'truncated', 'detail': 'x'}]


def test_a_manifest_of_noise_is_refused(tmp_path):
    directory = write_records(tmp_path / 'r')
    noise = (b'', b'[]', b'{}', b'\xff\xfe', b'{"schema_version": 1}', b'{"schema_version": 1, "splits": []}',
             b'[' * 200_000)
    for content in noise:
        (directory / dataset.MANIFEST).write_bytes(content)
        assert 'dataset.json' in error(directory)
