"""finetune build, as a person meets it: commands, files, exit codes, and what is left after a failure."""

import csv
import errno
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from finetune import build
from finetune.building import account, conversion
from finetune.console import locks
from finetune.models import zoo
from finetune.records import dataset
from finetune.runs import recipe as recipes
from tests import toy
from tests.toy_build import ROOT, beside, digests, manifest, read, start


def run(directory: Path, output: Path, *more: str, code: int = 0) -> None:
    """With one worker process."""
    flags = [f'--train_directory={directory}', f'--output_directory={output}', *more]
    if not any(flag.startswith('--num_threads') for flag in more):
        flags.append('--num_threads=1')
    assert build.main(flags) == code


@pytest.fixture
def pictures(tmp_path) -> Path:
    return toy.class_folders(tmp_path / 'D' / 'train', {'cat': 7, 'dog': 5})


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / 'records' / 'toy'


# ---- what is written ----


def test_every_picture_is_in_the_records_once_with_its_label_and_its_name(pictures, output, capsys):
    run(pictures, output, '--validation_percent=0', '--train_shards=3')
    found = read(output)
    expected = [(1, 'cat', b'cat/%d.jpg' % i) for i in range(7)] + [(2, 'dog', b'dog/%d.jpg' % i) for i in range(5)]
    assert sorted((record['label'], record['text'], record['filename']) for record in found) == expected
    assert all(record['encoded'] == (pictures / os.fsdecode(record['filename'])).read_bytes() for record in found)
    assert {record['size'] for record in found} == {(24, 32)}
    assert (output / 'labels.txt').read_text() == 'cat\ndog\n'
    assert sorted(path.name for path in output.iterdir()) == [
        'dataset.json', 'labels.txt', 'skipped.csv', *(f'train-0000{i}-of-00003' for i in range(3))]
    assert capsys.readouterr().out.splitlines()[-1] == 'found 12 pictures: wrote 12, skipped 0'


def test_the_records_of_a_class_are_spread_and_not_one_after_the_other(tmp_path, output):
    run(toy.class_folders(tmp_path / 'D', {'cat': 20, 'dog': 20}), output, '--validation_percent=0')
    found = [record['label'] for record in read(output)]
    assert found != sorted(found)
    assert all(set(half) == {1, 2} for half in (found[:20], found[20:]))


def test_a_labels_file_fixes_the_numbers_and_leaves_other_folders_out(pictures, output, tmp_path, capsys):
    toy.class_folders(pictures, {'ant': 3})
    (tmp_path / 'labels.txt').write_text('dog\nunicorn\ncat\n')
    run(pictures, output, f'--labels_file={tmp_path}/labels.txt', '--validation_percent=0')
    opened = dataset.open_records(output)
    assert opened.labels == ('background', 'dog', 'unicorn', 'cat')
    assert opened.split('train').per_class == (0, 5, 0, 7)
    assert {(record['label'], record['text']) for record in read(output)} == {(1, 'dog'), (3, 'cat')}
    told = capsys.readouterr().err
    assert 'no folder for unicorn' in told and 'ant not in the labels file: 3 pictures are left out' in told


def test_a_folder_called_background_is_label_0(pictures, output):
    toy.class_folders(pictures, {'background': 4})
    run(pictures, output, '--validation_percent=0')
    opened = dataset.open_records(output)
    assert opened.labels == ('background', 'cat', 'dog')
    assert opened.split('train').per_class == (4, 7, 5)
    assert (output / 'labels.txt').read_text() == 'cat\ndog\n'


def test_a_class_that_validation_lacks_keeps_its_number_there(pictures, output, tmp_path, capsys):
    toy.class_folders(tmp_path / 'D' / 'validation', {'dog': 3}, first=50)
    run(pictures, output, f'--validation_directory={tmp_path}/D/validation')
    assert {record['label'] for record in read(output, 'validation')} == {2}
    assert 'validation has no picture of cat' in capsys.readouterr().err


def test_a_class_of_validation_alone_is_an_error_that_names_it(pictures, output, tmp_path, capsys):
    toy.class_folders(tmp_path / 'D' / 'validation', {'dog': 1, 'emu': 1})
    run(pictures, output, f'--validation_directory={tmp_path}/D/validation', code=1)
    assert 'class emu has no folder in' in capsys.readouterr().err
    assert not output.exists()


NEARLY = [('caf\u00e9', 'cafe\u0301'), ('cafe\u0301', 'caf\u00e9'), ('Cat', 'cat'), ('STRASSE', 'stra\u00dfe'),
          ('cat', 'cat '), ('Sea lion', 'sea  lion')]


@pytest.mark.parametrize(('listed', 'folder'), NEARLY)
def test_a_folder_that_is_only_nearly_a_listed_class_is_told_of(tmp_path, output, listed, folder, capsys):
    """A Mac writes an accent as a character of its own: the class had no picture, and nobody could see why."""
    pictures = toy.class_folders(tmp_path / 'D', {folder: 2, 'dog': 2})
    (tmp_path / 'labels.txt').write_text(f'{listed}\ndog\n', encoding='utf-8')
    run(pictures, output, f'--labels_file={tmp_path}/labels.txt')
    told = capsys.readouterr().err
    assert ascii(folder) in told and ascii(listed) in told and 'nearly' in told


@pytest.mark.parametrize(('trained', 'validated'), NEARLY)
def test_a_folder_of_validation_that_is_only_nearly_a_class_is_an_error(
    tmp_path, output, trained, validated, capsys
):
    pictures = toy.class_folders(tmp_path / 'D', {trained: 2, 'dog': 2})
    validation = toy.class_folders(tmp_path / 'V', {validated: 2, 'dog': 2}, first=50)
    run(pictures, output, f'--validation_directory={validation}', code=1)
    told = capsys.readouterr().err
    assert ascii(trained) in told and ascii(validated) in told and f'{validation}' in told and 'Rename' in told


def test_classes_that_are_all_there_may_look_alike(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'Cat': 2, 'cat': 2})
    (tmp_path / 'labels.txt').write_text('cat\n')
    run(pictures, output, f'--labels_file={tmp_path}/labels.txt')
    assert dataset.open_records(output).labels == ('background', 'cat')


def test_every_format_gives_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    """Some decoders are quick to start threads of their own."""
    formats, folder = [('avif', 'AVIF'), ('tif', 'TIFF'), ('jp2', 'JPEG2000'), ('ppm', 'PPM')], tmp_path / 'D' / 'cat'
    folder.mkdir(parents=True)
    for number, (suffix, format) in enumerate(8 * formats):
        (folder / f'{number}.{suffix}').write_bytes(toy.encoded(toy.picture(number, (300, 200)), format))
    for name, processes in (('a', 1), ('b', 3)):
        run(tmp_path / 'D', tmp_path / name, '--validation_percent=0', f'--num_threads={processes}')
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
    assert manifest(tmp_path / 'a')['written'] == 32


@pytest.mark.parametrize('processes', [3, 8])
def test_the_same_pictures_give_the_same_bytes_whatever_the_number_of_processes(tmp_path, processes):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 60, 'dog': 50})
    (pictures / 'cat' / 'bad.jpg').write_bytes(b'bad')
    for name, number in (('a', 1), ('b', processes)):
        run(pictures, tmp_path / name, f'--num_threads={number}', '--train_shards=4')
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')


def test_more_shards_than_pictures_are_all_there_and_some_empty(pictures, output, capsys):
    run(pictures, output, '--validation_percent=0', '--train_shards=20')
    split = dataset.open_records(output).split('train')
    assert len(split.shards) == 20 and split.records == 12 == len(read(output))
    assert 'more shards (20) than pictures (12)' in capsys.readouterr().err


def test_pictures_shrink_when_asked(tmp_path, output):
    toy.class_folders(tmp_path / 'D', {'cat': 2, 'dog': 2}, size=(320, 240))
    run(tmp_path / 'D', output, '--short_side=60', '--validation_percent=0')
    assert {record['size'] for record in read(output)} == {(60, 80)}
    assert manifest(output)['notes'] == {'shrunk': 4}


# ---- validation by content ----


def names(output: Path, split: str) -> set[bytes]:
    return {record['filename'] for record in read(output, split)}


def test_a_picture_hardly_ever_changes_sides_when_others_come(tmp_path):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 40, 'dog': 40})
    run(pictures, tmp_path / 'before')
    toy.class_folders(pictures, {'cat': 40, 'emu': 30}, first=40)
    run(pictures, tmp_path / 'after', '--seed=7')
    before, after = (names(tmp_path / name, 'validation') for name in ('before', 'after'))
    stayed = {name for name in names(tmp_path / 'before', 'train') | before if name.startswith(b'dog')}
    assert before & stayed == after & stayed  # Nothing was added to this class.
    assert len(before - after) <= 2  # Of 16.


def test_every_class_gives_its_share_to_validation_and_keeps_the_rest(tmp_path, output):
    """Each picture used to fall by itself: of 10 small classes some could not be learned and others not measured."""
    pictures = toy.class_folders(tmp_path / 'D', {f'of{count}': count for count in (1, 2, 3, 12, 30)})
    run(pictures, output)
    per_class = {name: dict(zip(dataset.open_records(output).labels, split.per_class, strict=True))
                 for name, split in dataset.open_records(output).splits.items()}
    assert per_class == {
        'train': {'background': 0, 'of1': 1, 'of2': 1, 'of3': 2, 'of12': 10, 'of30': 24},
        'validation': {'background': 0, 'of1': 0, 'of2': 1, 'of3': 1, 'of12': 2, 'of30': 6}}


def test_copies_and_bad_files_are_no_reason_to_lose_the_last_training_picture(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 9, 'dog': 1, 'emu': 2})
    for number in range(1, 9):
        (pictures / 'dog' / f'{number}.jpg').write_bytes((pictures / 'dog' / '0.jpg').read_bytes())
        (pictures / 'emu' / f'bad{number}.jpg').write_bytes(b'bad')
    run(pictures, output, '--validation_percent=99')
    assert dataset.open_records(output).split('train').per_class == (0, 1, 9, 1)
    assert dataset.open_records(output).split('validation').per_class == (0, 8, 0, 1)


def test_a_picture_with_two_labels_trains_and_measures_nothing(tmp_path, output):
    """One of them is wrong; and copies never fall on two sides, of whatever class."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 30, 'dog': 5})
    for number in range(20):
        (pictures / 'dog' / f'copy{number}.jpg').write_bytes((pictures / 'cat' / f'{number}.jpg').read_bytes())
    run(pictures, output, '--fail_on_leak', '--validation_percent=60')
    sides = [{record['encoded'] for record in read(output, split)} for split in ('train', 'validation')]
    assert not sides[0] & sides[1]
    found = manifest(output)['duplicates']
    assert (found['copies'], found['in_two_classes'], found['in_two_splits']) == (20, 20, 0)
    assert dataset.open_records(output).split('validation').per_class == (0, 6, 3)


@pytest.mark.parametrize('file_bytes', [1, 5000])
def test_records_that_wait_for_their_split_change_no_byte_and_leave_nothing(
    pictures, tmp_path, file_bytes, monkeypatch
):
    run(pictures, tmp_path / 'a')
    monkeypatch.setattr(conversion, 'SPOOL_FILE_BYTES', file_bytes)
    run(pictures, tmp_path / 'b')
    assert digests(tmp_path / 'a') == digests(tmp_path / 'b')
    assert not beside(tmp_path / 'b') and not list((tmp_path / 'b').glob('spool*'))


@pytest.mark.parametrize(('percent', 'code'), [(20, 1), (0, 0)])
def test_room_is_asked_for_records_that_wait_for_their_split_too(pictures, output, percent, code, monkeypatch, capsys):
    size = sum(path.stat().st_size for path in pictures.glob('*/*.jpg'))
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=size + 1))
    run(pictures, output, f'--validation_percent={percent}', code=code)
    assert ('Make room' in capsys.readouterr().err) == bool(code)


def tagged_jpeg(data: bytes, number: int) -> bytes:
    comment = b'%d: taken at home' % number
    return data[:2] + b'\xff\xfe' + (len(comment) + 2).to_bytes(2, 'big') + comment + data[2:] + b'a tail'


def png_again(data: bytes, number: int) -> bytes:
    return toy.encoded(Image.open(io.BytesIO(data)), 'PNG', compress_level=number % 9)


@pytest.mark.parametrize('changed', [tagged_jpeg, png_again])
def test_a_copy_whose_file_was_tagged_or_compressed_again_is_the_same_picture(tmp_path, output, changed, capsys):
    """Photos tagged by a program, or exported with other metadata, were seen in training and measured as new."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 20, 'dog': 20})
    suffix = 'png' if changed is png_again else 'jpg'
    for number, path in enumerate(sorted(pictures.glob('*/*.jpg'))):
        if changed is png_again:
            path.with_suffix('.png').write_bytes(png_again(path.read_bytes(), 9))
            path.unlink()
        data = path.with_suffix(f'.{suffix}').read_bytes()
        path.with_name(f'{path.stem}_again.{suffix}').write_bytes(changed(data, number))
    first = (pictures / 'cat' / f'0.{suffix}').read_bytes()
    (pictures / 'dog' / f'mine.{suffix}').write_bytes(changed(first, 3))
    run(pictures, output, '--fail_on_leak', '--short_side=20')
    sides = [{record['encoded'] for record in read(output, split)} for split in ('train', 'validation')]
    assert sides[1] and not sides[0] & sides[1]
    found = manifest(output)['duplicates']
    assert (found['copies'], found['in_two_classes'], found['in_two_splits']) == (41, 1, 0)
    assert 'one of the labels is wrong' in capsys.readouterr().err


@pytest.mark.parametrize('changed', [tagged_jpeg, png_again])
def test_a_tagged_copy_among_the_validation_pictures_is_a_leak(tmp_path, output, changed, capsys):
    train = toy.class_folders(tmp_path / 'T', {'cat': 4, 'dog': 4})
    validation = toy.class_folders(tmp_path / 'V', {'cat': 2, 'dog': 2}, first=50)
    (train / 'cat' / 'a.png').write_bytes(png_again((train / 'cat' / '0.jpg').read_bytes(), 9))
    original = (train / 'cat' / ('a.png' if changed is png_again else '0.jpg')).read_bytes()
    (validation / 'cat' / 'copy.jpg').write_bytes(changed(original, 1))
    run(train, output, f'--validation_directory={validation}', '--fail_on_leak', code=1)
    assert '--fail_on_leak: 1 picture in train' in capsys.readouterr().err


def test_records_tell_by_which_rule_their_pictures_were_split(pictures, output):
    run(pictures, output)
    assert manifest(output)['split_version'] == 2


def test_the_share_is_what_was_asked_and_the_automatic_one_is_told(tmp_path, capsys):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 150, 'dog': 150}, size=(16, 16))
    run(pictures, tmp_path / 'a', '--validation_percent=50')
    assert dataset.open_records(tmp_path / 'a').split('validation').records == 150
    assert 'automatically' not in capsys.readouterr().err
    run(pictures, tmp_path / 'b')
    assert '20 %' in (told := capsys.readouterr().err) and '--validation_percent' in told


# ---- a test set ----


def test_a_test_directory_becomes_a_third_split_with_the_same_numbers(pictures, output, tmp_path):
    toy.class_folders(tmp_path / 'T', {'dog': 3}, first=50)
    run(pictures, output, f'--test_directory={tmp_path}/T', '--test_shards=3')
    opened = dataset.open_records(output)
    assert list(opened.splits) == ['train', 'validation', 'test'] and len(opened.split('test').shards) == 3
    assert names(output, 'test') == {b'dog/50.jpg', b'dog/51.jpg', b'dog/52.jpg'}
    assert {record['label'] for record in read(output, 'test')} == {2}
    assert (opened.split('train').records, opened.split('validation').records) == (10, 2)
    told = manifest(output)
    assert told['sources'] == {'train and validation': f'{pictures}', 'test': f'{tmp_path}/T'}
    assert told['validation_percent'] == 20 and 'test_percent' not in told


def test_a_test_set_by_content_takes_no_picture_from_validation(tmp_path, capsys):
    """What was measured before it was switched on can be compared with what is measured after."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 40, 'dog': 20, 'emu': 3})
    for name, flags in {'a': [], 'b': ['--test_percent=15'], 'c': ['--test_percent=30', '--seed=8']}.items():
        run(pictures, tmp_path / name, *flags)
    splits = {name: {split: names(tmp_path / name, split) for split in dataset.open_records(tmp_path / name).splits}
              for name in 'abc'}
    assert splits['a']['validation'] == splits['b']['validation'] == splits['c']['validation']
    assert splits['b']['test'] < splits['c']['test'] < splits['a']['train']
    assert dataset.open_records(tmp_path / 'b').split('test').per_class == (0, 6, 3, 1)
    assert '15 % of them, by content, are kept for test' in capsys.readouterr().err
    assert (manifest(tmp_path / 'b')['test_percent'], manifest(tmp_path / 'b')['validation_percent']) == (15, 20)


@pytest.mark.parametrize(('flags', 'expected'), [
    (['--validation_percent=0', '--test_percent=20'], {'train': 10, 'test': 2}),
    (['--validation_directory=V', '--test_percent=20'], {'train': 10, 'validation': 4, 'test': 2}),
    (['--validation_directory=V', '--test_directory=T'], {'train': 12, 'validation': 4, 'test': 2}),
    (['--validation_percent=0', '--test_directory=T'], {'train': 12, 'test': 2})])
def test_each_split_comes_from_its_directory_or_from_the_training_one(
    pictures, tmp_path, flags, expected, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    toy.class_folders(tmp_path / 'V', {'cat': 2, 'dog': 2}, first=50)
    toy.class_folders(tmp_path / 'T', {'cat': 1, 'dog': 1}, first=70)
    run(pictures, tmp_path / 'records', *flags)
    assert {name: split.records for name, split in dataset.open_records('records').splits.items()} == expected


def test_copies_are_on_one_of_three_sides(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 20, 'dog': 20})
    for number, path in enumerate(sorted(pictures.glob('*/*.jpg'))):
        path.with_name(f'{path.stem}_again.jpg').write_bytes(tagged_jpeg(path.read_bytes(), number))
    run(pictures, output, '--test_percent=25', '--fail_on_leak')
    assert {name: split.records for name, split in dataset.open_records(output).splits.items()} == {
        'train': 44, 'validation': 16, 'test': 20}
    assert manifest(output)['duplicates']['in_two_splits'] == 0


def test_records_are_not_written_among_the_test_pictures(pictures, tmp_path, capsys):
    test = toy.class_folders(tmp_path / 'T', {'cat': 2}, first=50)
    run(pictures, test / 'records', f'--test_directory={test}', code=2)
    assert 'lie one in the other' in capsys.readouterr().err


@pytest.mark.parametrize('other', ['validation', 'train'])
def test_a_picture_of_the_test_set_in_any_other_split_is_a_leak(pictures, output, tmp_path, other, capsys):
    toy.class_folders(tmp_path / 'V', {'cat': 2, 'dog': 2}, first=50)
    toy.class_folders(tmp_path / 'T', {'cat': 2, 'dog': 2}, first=70)
    source = tmp_path / 'V' / 'cat' / '50.jpg' if other == 'validation' else pictures / 'cat' / '0.jpg'
    (tmp_path / 'T' / 'cat' / 'copy.jpg').write_bytes(source.read_bytes())
    flags = [f'--validation_directory={tmp_path}/V', f'--test_directory={tmp_path}/T']
    run(pictures, output, *flags)
    told = capsys.readouterr().err
    assert 'found in two of train, validation and test, so that' in told
    assert f'{"validation/cat/50" if other == "validation" else "train/cat/0"}.jpg = test/cat/copy.jpg' in told
    run(pictures, output, *flags, '--fail_on_leak', code=1)
    assert '--fail_on_leak: 1 picture in two of train, validation and test;' in capsys.readouterr().err


def test_a_class_too_small_to_be_tested_is_told_with_how_many_pictures_it_takes(pictures, output, tmp_path, capsys):
    toy.class_folders(pictures, {'emu': 2, 'fox': 1}, first=50)
    run(pictures, output, '--test_percent=10')
    told = capsys.readouterr().err
    assert 'validation has no picture of fox, which is not measured' in told and 'of 2 different pictures' in told
    assert 'test has no picture of emu, fox, which is not measured' in told and 'of 3 different pictures' in told


def test_a_test_directory_without_a_class_is_told_by_its_name(pictures, output, tmp_path, capsys):
    toy.class_folders(tmp_path / 'T', {'dog': 3}, first=50)
    run(pictures, output, f'--test_directory={tmp_path}/T')
    assert f'test has no picture of cat, which is not measured; add some to {tmp_path}/T' in capsys.readouterr().err


def test_a_test_set_that_no_picture_fell_to_is_told_with_the_flags_that_give_it_some(tmp_path, output, capsys):
    run(toy.class_folders(tmp_path / 'D', {'cat': 2, 'dog': 2}), output, '--test_percent=10')
    told = capsys.readouterr().err
    assert 'no picture fell to test' in told and '3 different pictures' in told and '--test_directory' in told
    assert list(dataset.open_records(output).splits) == ['train', 'validation']


def test_a_class_of_the_test_set_alone_is_an_error_that_names_it(pictures, output, tmp_path, capsys):
    toy.class_folders(tmp_path / 'T', {'emu': 1})
    run(pictures, output, f'--test_directory={tmp_path}/T', code=1)
    assert f'{tmp_path}/T: class emu has no folder in {pictures}' in capsys.readouterr().err


def test_a_set_in_three_parts_is_answered_with_the_three_flags_that_build_it(tmp_path, output, capsys):
    toy.class_folders(tmp_path / 'D', {f'{part}/{name}': 2 for part in ('test', 'train', 'val') for name in 'ab'})
    run(tmp_path / 'D', output, code=1)
    flags = ' '.join(f'--{name}_directory={tmp_path}/D/{folder}'
                     for name, folder in (('train', 'train'), ('validation', 'val'), ('test', 'test')))
    assert f'Did you mean {flags}?' in capsys.readouterr().err
    assert build.main([*flags.split(), f'--output_directory={output}', '--num_threads=1']) == 0
    assert list(dataset.open_records(output).splits) == ['train', 'validation', 'test']


# ---- what is wrong is told ----


def test_every_skipped_file_is_listed_and_counted(pictures, output, capsys):
    (pictures / 'cat' / 'empty.jpg').touch()
    (pictures / 'cat' / 'a,"b"\n\x1b[31m.jpg').write_bytes(b'garbage')
    (pictures / 'dog' / 'half.jpg').write_bytes((pictures / 'dog' / '0.jpg').read_bytes()[:300])
    (pictures / 'dog' / 'page.jxl').write_bytes(b'\xff\x0a' + bytes(90))
    (pictures / 'dog' / 'notes.txt').touch()
    run(pictures, output, '--validation_percent=0')
    rows = list(csv.DictReader((output / 'skipped.csv').open(newline='')))
    assert {(Path(row['file']).name, row['reason']) for row in rows} == {
        ('empty.jpg', 'empty_file'), ('a,"b"\\n\\x1b[31m.jpg', 'not_an_image'), ('half.jpg', 'truncated'),
        ('page.jxl', 'unsupported_format')}
    assert (output / 'skipped.csv').read_bytes().count(b'\n') == 5
    last = capsys.readouterr().out.splitlines()[-1]
    assert 'found 16 pictures: wrote 12, skipped 4' in last and '1 truncated' in last and 'skipped.csv' in last
    assert 'passed over 1 other file (1 not_an_image_suffix)' in last
    assert last.startswith('WARNING')  # More than 5 %.
    told = manifest(output)
    assert told['found'] == told['written'] + sum(told['skipped'].values()) == 16


def test_a_picture_above_a_limit_is_listed_with_the_flag_that_raises_it(pictures, output, capsys):
    (pictures / 'cat' / 'large.jpg').write_bytes(toy.encoded(toy.picture(size=(64, 48))))
    (pictures / 'cat' / 'long.bmp').write_bytes(bytes(5000))
    (pictures / 'cat' / 'thin.png').write_bytes(toy.encoded(toy.picture(size=(65_501, 1)), 'PNG'))
    run(pictures, output, '--max_pixels=70000', '--max_bytes=4999')
    with_flags = {Path(row['file']).name: row['detail'] for row in csv.DictReader((output / 'skipped.csv').open())}
    assert with_flags == {
        'long.bmp': '5000 bytes; the limit is 4999 (--max_bytes)',
        'thin.png': '65501x1; no side may exceed 65500'}
    run(pictures, output, '--max_pixels=800', '--strict', code=1)
    assert 'large.jpg: too_many_pixels: 64x48; the limit is 800 (--max_pixels)' in capsys.readouterr().err


def test_strict_changes_nothing_and_names_the_file(pictures, output, capsys):
    run(pictures, output)
    before = digests(output)
    (pictures / 'cat' / 'empty.jpg').touch()
    run(pictures, output, '--strict', code=1)
    assert digests(output) == before
    told = capsys.readouterr().err
    assert 'cat/empty.jpg: empty_file' in told and '--strict: 1 file would be skipped' in told


def test_a_class_that_is_a_link_to_nothing_is_told_and_strict_fails(pictures, output, capsys):
    (pictures / 'dodo').symlink_to('/mnt/not_there/dodo')
    run(pictures, output, '--strict', code=1)
    assert 'dodo: symlink_dangling' in capsys.readouterr().err and not output.exists()
    run(pictures, output)
    assert f'{pictures}/dodo' in capsys.readouterr().err
    assert 'dodo,symlink_dangling,a link to nothing' in (output / 'skipped.csv').read_text()


@pytest.mark.parametrize('folders', [('train', 'test'), ('train/cat', 'train/dog', 'val/cat')])
def test_the_parts_of_a_set_become_classes_only_if_a_labels_file_lists_them(tmp_path, output, folders, capsys):
    """Kaggle's dogs-vs-cats is train/cat.0.jpg …, test/1.jpg …: a classifier of 'train' against 'test'."""
    pictures = toy.class_folders(tmp_path / 'D', dict.fromkeys(folders, 3))
    run(pictures, output, '--recursive', code=1)
    assert 'parts of a data set' in capsys.readouterr().err and not output.exists()
    (tmp_path / 'labels.txt').write_text('train\ntest\nval\n')
    run(pictures, output, '--recursive', f'--labels_file={tmp_path}/labels.txt')
    assert dataset.open_records(output).labels == ('background', 'train', 'test', 'val')
    (tmp_path / 'labels.txt').write_text('cat\ndog\n')
    run(pictures, output, '--recursive', f'--labels_file={tmp_path}/labels.txt', code=1)
    assert 'parts of a data set' in capsys.readouterr().err


def test_a_part_of_a_set_that_is_named_for_validation_is_told_from_a_class(tmp_path, output, capsys):
    pictures = toy.class_folders(tmp_path / 'D', {'train': 3, 'bus': 3})
    validation = toy.class_folders(tmp_path / 'V', {'train': 2}, first=50)
    run(pictures, output, f'--validation_directory={validation}')
    toy.class_folders(tmp_path / 'W', {'val/train': 2, 'test/train': 2}, first=50)
    run(pictures, output, f'--validation_directory={tmp_path}/W', '--recursive', code=1)
    assert f'Did you mean --validation_directory={tmp_path}/W/val?' in capsys.readouterr().err


def test_the_same_picture_in_both_splits_is_told_and_fails_when_asked(pictures, output, tmp_path, capsys):
    validation = toy.class_folders(tmp_path / 'D' / 'validation', {'cat': 2, 'dog': 2})  # As the first in train.
    run(pictures, output, f'--validation_directory={validation}')
    told = capsys.readouterr().err
    assert 'in train and in validation' in told and 'train/cat/0.jpg = validation/cat/0.jpg' in told
    assert manifest(output)['duplicates']['in_two_splits'] == 4
    before = digests(output)
    run(pictures, output, f'--validation_directory={validation}', '--fail_on_leak', '--seed=2', code=1)
    assert '--fail_on_leak: 4 pictures' in capsys.readouterr().err
    assert digests(output) == before


def test_one_picture_with_two_labels_is_told(pictures, output, capsys):
    (pictures / 'dog' / 'x.jpg').write_bytes((pictures / 'cat' / '3.jpg').read_bytes())
    run(pictures, output, '--validation_percent=0')
    told = capsys.readouterr().err
    assert 'one of the labels is wrong: 1 picture, for example train/cat/3.jpg = train/dog/x.jpg' in told


def test_small_empty_single_and_look_alike_classes_are_told(tmp_path, capsys):
    pictures = toy.class_folders(tmp_path / 'D', {'Cat': 3, 'cat': 25})
    (pictures / 'emu').mkdir()
    run(pictures, tmp_path / 'a', '--validation_percent=0')
    told = capsys.readouterr().err
    assert 'fewer than 20 pictures of Cat;' in told
    assert 'no usable picture of emu' in told
    assert "classes 'Cat', 'cat' differ only in case," in told
    run(toy.class_folders(tmp_path / 'E', {'cat': 30}), tmp_path / 'b', '--validation_percent=0')
    assert 'there is one class' in capsys.readouterr().err


@pytest.mark.parametrize(('one', 'other'), [*NEARLY, ('cat', ' Cat'), ('cat', 'cat\u00a0')])
def test_classes_that_look_the_same_in_the_table_are_told_of(tmp_path, output, one, other, capsys):
    run(toy.class_folders(tmp_path / 'D', {one: 2, other: 2}), output)
    told = capsys.readouterr().err
    assert ascii(one) in told and ascii(other) in told and 'differ only in case, in blanks or' in told


def test_a_side_without_pictures_is_told_with_the_flags_that_give_it_some(tmp_path, output, capsys):
    run(toy.class_folders(tmp_path / 'D', {'cat': 1, 'dog': 1}), output)
    told = capsys.readouterr().err
    assert 'no picture fell to validation' in told and '--validation_directory' in told and 'of 2 different' in told
    assert list(dataset.open_records(output).splits) == ['train']


def test_a_class_that_cannot_be_measured_or_learned_is_told_with_what_to_do(pictures, tmp_path, capsys):
    toy.class_folders(pictures, {'emu': 1})
    run(pictures, tmp_path / 'a')
    told = capsys.readouterr().err
    assert 'validation has no picture of emu, which is not measured' in told and 'of 2 different pictures' in told
    validation = toy.class_folders(tmp_path / 'V', {'cat': 2, 'emu': 1}, first=50)
    (pictures / 'emu' / '0.jpg').write_bytes(b'bad')
    run(pictures, tmp_path / 'b', f'--validation_directory={validation}')
    told = capsys.readouterr().err
    assert f'validation has no picture of dog, which is not measured; add some to {validation}' in told
    assert f'train has no picture of emu, which cannot be learned; add some to {pictures}' in told


def test_a_validation_directory_of_bad_files_alone_is_told_by_its_name(pictures, tmp_path, output, capsys):
    (tmp_path / 'V' / 'cat').mkdir(parents=True)
    (tmp_path / 'V' / 'cat' / 'a.jpg').write_bytes(b'bad')
    run(pictures, output, f'--validation_directory={tmp_path}/V')
    told = capsys.readouterr().err
    assert f'no picture of {tmp_path}/V can be used; the records have no validation split' in told
    assert 'validation has' not in told  # Said once.


def test_what_a_picture_lost_on_its_way_into_the_records_is_told_once_with_an_example(tmp_path, output, capsys):
    """It stood in dataset.json alone, whatever was lost by it."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 3, 'dog': 3})
    for number in range(2):
        (pictures / 'dog' / f'wide{number}.png').write_bytes(toy.encoded(toy.picture(number, (900, 12)), 'PNG'))
    (pictures / 'cat' / 'dot.png').write_bytes(toy.encoded(toy.picture(9, (40, 40)).resize((9, 9)), 'PNG'))
    (pictures / 'cat' / 'clear.png').write_bytes(toy.encoded(toy.picture(7).convert('RGBA'), 'PNG'))
    for number, value in enumerate((4095, 166, 3000)):
        Image.new('I;16', (32, 24), value - number).save(pictures / 'dog' / f'dark{number}.png')
    run(pictures, output)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith('warning')]
    found = {note: [line for line in warnings if note in line] for note in ('dark_16_bit', 'extreme_aspect', 'tiny')}
    assert all(len(lines) == 1 for lines in found.values())
    assert '2 pictures' in found['extreme_aspect'][0] and ' dog/wide' in found['extreme_aspect'][0]
    assert '3 pictures' in found['dark_16_bit'][0] and '--sixteen_bit_max=4095' in found['dark_16_bit'][0]
    assert '1 picture' in found['tiny'][0] and ' cat/dot.png' in found['tiny'][0]
    assert not any('shrunk' in line or 'converted_to_rgb' in line for line in warnings)


def test_pictures_that_are_all_bad_make_no_records(tmp_path, output, capsys):
    (tmp_path / 'D' / 'cat').mkdir(parents=True)
    (tmp_path / 'D' / 'cat' / 'a.jpg').write_bytes(b'bad')
    run(tmp_path / 'D', output, code=1)
    assert 'no picture can be used' in (told := capsys.readouterr().err) and 'cat/a.jpg: not_an_image' in told
    assert not output.exists() and not beside(output)


def test_json_is_for_machines_and_nothing_else_is_on_stdout(pictures, output, capsys):
    run(pictures, output, '--json')
    assert json.loads(capsys.readouterr().out) == manifest(output)


def test_the_next_command_stands_ready_to_paste_and_is_the_one_to_begin_with(pictures, tmp_path, capsys):
    """It trained everything, from the small backbone: the one plan that nobody should take first."""
    run(pictures, tmp_path / 'my records')
    assert (f"Next:  finetune train --data_dir='{tmp_path}/my records' --train_dir='checkpoints/my records' "
            '--pretrained=imagenet --fine_tune --freeze_backbone\n') in capsys.readouterr().err


def test_the_next_command_comes_last(pictures, output):
    """In one log of both streams the counts stood below it, as if they were an answer to it."""
    told, _ = start(pictures, output, stderr=subprocess.STDOUT).communicate()
    assert told.index('found ') < told.index('Next:  finetune train')


@pytest.mark.parametrize('cached', [False, True])
def test_a_download_that_the_next_command_needs_is_told_with_the_way_around_it(
    pictures, tmp_path, output, cached, monkeypatch, capsys
):
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'keras'))
    if cached:
        (tmp_path / 'keras' / 'models').mkdir(parents=True)
        (tmp_path / 'keras' / 'models' / account.IMAGENET_WEIGHTS).touch()
    run(pictures, output)
    assert ('--pretrained=sample' in capsys.readouterr().err) is not cached


def test_the_weights_that_a_build_looks_for_are_those_that_train_will_ask_keras_for(monkeypatch):
    asked = []

    def get_file(name, *arguments, **options):
        asked.append(name)
        raise FileNotFoundError

    monkeypatch.setattr('keras.src.utils.file_utils.get_file', get_file)
    recipe = recipes.plan({'pretrained': 'imagenet', 'fine_tune': True, 'freeze_backbone': True}, None, 100)
    with pytest.raises(FileNotFoundError):
        zoo.backbone(recipe.model, recipe.image_size, recipe.width, 'imagenet')
    assert asked == [account.IMAGENET_WEIGHTS]


@pytest.mark.parametrize(('flags', 'expected'), [
    ([], '--train_directory is missing'), (['--train_directory=D'], '--output_directory is missing'),
    (['photos'], 'did you mean --train_directory=photos'),
    (['--train_directory=D', '--output_directory=o', '--validation_directory=V', '--validation_percent=9'], 'exclude'),
    (['--train_directory=D', '--output_directory=o', '--validation_percent=100'], 'nothing to train on'),
    (['--train_directory=D', '--output_directory=o', '--validation_percent=0.2'], 'mean --validation_percent=20?'),
    (['--train_directory=D', '--output_directory=o', '--test_directory=T', '--test_percent=9'], 'exclude'),
    (['--train_directory=D', '--output_directory=o', '--test_percent=0.1'], 'mean --test_percent=10?'),
    (['--train_directory=D', '--output_directory=o', '--test_percent=80'],
     '--validation_percent=20 and --test_percent=80 leave nothing to train on'),
    (['--train_directory=D', '--output_directory=D/records'], 'lie one in the other'),
    (['--train_directory=D', '--output_directory=.'], 'lie one in the other'),
])
def test_a_command_that_cannot_be_meant_is_bad_usage(flags, expected, tmp_path, monkeypatch, capsys):
    toy.class_folders(tmp_path / 'D', {'cat': 1})
    monkeypatch.chdir(tmp_path)
    assert build.main(flags) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / 'D']


@pytest.mark.parametrize('name', ['.', '..', '../../E'])
def test_the_folder_that_the_user_is_in_is_not_replaced(pictures, tmp_path, name, monkeypatch, capsys):
    """The shell would stay in a deleted folder, where no relative path leads anywhere."""
    here = tmp_path / 'E' / 'records'
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    run(pictures, Path(name), '--overwrite', code=2)
    assert 'cd to another folder' in capsys.readouterr().err
    assert list(here.parent.iterdir()) == [here]


# ---- old records, other people's files, failures ----


def test_a_new_build_replaces_the_old_one_whole(pictures, output):
    run(pictures, output, '--train_shards=4')
    run(pictures, output, '--train_shards=2')
    assert not [path for path in output.iterdir() if path.name.endswith('-of-00004')]
    dataset.verify(dataset.open_records(output))
    assert not beside(output)


def test_damaged_records_can_be_built_again(pictures, output):
    run(pictures, output)
    (output / 'train-00000-of-00002').unlink()
    run(pictures, output)
    dataset.verify(dataset.open_records(output))


def test_files_that_no_build_wrote_are_not_replaced_unless_asked(pictures, output, capsys):
    run(pictures, output)
    for name in ('.DS_Store', 'Thumbs.db', 'desktop.ini'):  # Of the system; nobody would miss them.
        (output / name).touch()
    run(pictures, output)
    (output / 'thesis.txt').write_text('years of work')
    run(pictures, output, code=1)
    assert 'thesis.txt, which no build wrote' in capsys.readouterr().err
    assert (output / 'thesis.txt').read_text() == 'years of work'
    run(pictures, output, '--overwrite')
    assert not (output / 'thesis.txt').exists()


def test_a_mount_point_is_refused_before_any_work(pictures, output, monkeypatch, capsys):
    """No rename can replace it, and a folder beside it lies on another disk."""
    output.mkdir(parents=True)
    monkeypatch.setattr(os.path, 'ismount', lambda path: Path(path) == output)
    run(pictures, output, code=1)
    told = capsys.readouterr().err
    assert f'{output} is a mount point' in told and f'--output_directory={output}/records' in told
    assert 'Building' not in told


@pytest.mark.parametrize('number', [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize('refuses', [(tempfile, 'TemporaryFile'), (Path, 'mkdir')])
def test_a_parent_that_may_not_be_written_is_named(pictures, output, number, refuses, monkeypatch, capsys):
    """Not a hidden file in it of which the user knows nothing. Root may write everywhere: the refusal is played."""
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*refuses, refused)
    run(pictures, output, code=1)
    told = capsys.readouterr().err
    assert f'{output.parent}: {os.strerror(number)}' in told and 'another --output_directory' in told
    assert '.lock' not in told


def test_a_file_system_without_locks_and_syncs_takes_records(pictures, output, monkeypatch, capsys):
    """SMB, vboxsf and old CIFS cannot sync a folder: all the work was done, and then removed."""
    def refused(*_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(fcntl, 'flock', refused)
    monkeypatch.setattr(os, 'fsync', refused)
    monkeypatch.setattr(locks, '_warned_of', set())
    run(pictures, output)
    assert 'knows no locks' in capsys.readouterr().err
    assert dataset.open_records(output)


def build_until(event: str, pictures: Path, output: Path, *more: str) -> subprocess.Popen:
    """Starts a build of pictures and waits until it says so on its standard error."""
    process = start(pictures, output, *more, env=os.environ | {'PYTHONUNBUFFERED': '1'})
    for line in process.stderr:
        if event in line:
            return process
    raise AssertionError(process.wait())


@pytest.fixture
def slow_pictures(tmp_path) -> Path:
    """Pictures that take seconds to read."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 2, 'dog': 2}, size=(3000, 2000))
    for copy in range(40):
        for path in list(pictures.glob('*/?.jpg')):
            path.with_name(f'{path.stem}_{copy}.jpg').hardlink_to(path)
    return pictures


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_stopped_build_leaves_the_old_records_and_nothing_half_made(
    slow_pictures, output, number, code, processes, tmp_path
):
    run(toy.class_folders(tmp_path / 'E', {'cat': 3, 'dog': 3}), output)
    before = digests(output)
    process = build_until('Worker processes', slow_pictures, output, '--max_side=2900', f'--num_threads={processes}')
    time.sleep(0.5)
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert time.monotonic() - started < 5
    assert 'Traceback' not in process.stderr.read()
    assert digests(output) == before
    assert not beside(output)


def test_a_second_build_of_the_same_records_is_refused(slow_pictures, pictures, output, capsys):
    process = build_until('Worker processes', slow_pictures, output, '--short_side=900', '--num_threads=1')
    try:
        run(pictures, output, code=1)
        assert f'another build (pid {process.pid}) is writing here' in capsys.readouterr().err
    finally:
        process.terminate()
        process.wait()
    run(pictures, output)


@pytest.mark.parametrize('call', ['build.main(flags)', 'raise SystemExit(build.main(flags))'])
def test_a_program_may_call_a_build_without_a_main_guard(pictures, output, tmp_path, call):
    """Where a thread runs, processes start from a server, and each ran the whole program again."""
    program = tmp_path / 'program.py'
    program.write_text(
        'import threading, time\n'
        'from finetune import build\n'
        'print("once")\n'
        'threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n'
        f'flags = ["--train_directory={pictures}", "--output_directory={output}", "--num_threads=2"]\n'
        f'{call}\n')
    done = subprocess.run([sys.executable, program], cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 0 and 'error' not in done.stderr, done.stderr
    assert done.stdout.count('once') == 1
    assert dataset.open_records(output).split('train').records == 10
