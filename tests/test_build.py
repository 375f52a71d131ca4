"""finetune build, as a person meets it: commands, files, exit codes, and what is left after a failure."""

import csv
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image

from finetune import build
from finetune.building import account
from finetune.console import locks
from finetune.models import packages, zoo
from finetune.records import dataset
from finetune.runs import recipe as recipes
from tests import toy
from tests.toy_build import ROOT, beside, digests, manifest, read, run, start


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


@pytest.mark.parametrize('there', ['', 'cached', 'installed'])
def test_a_download_that_the_next_command_needs_is_told_with_the_way_around_it(
    pictures, tmp_path, output, there, monkeypatch, capsys
):
    monkeypatch.setenv('KERAS_HOME', str(tmp_path / 'keras'))
    monkeypatch.setattr(account, 'IMAGENET_PACKAGE', 'json' if there == 'installed' else 'not_there')
    if there == 'cached':
        (tmp_path / 'keras' / 'models').mkdir(parents=True)
        (tmp_path / 'keras' / 'models' / account.IMAGENET_WEIGHTS).touch()
    run(pictures, output)
    assert ('--pretrained=sample' in capsys.readouterr().err) is not bool(there)


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
    assert packages.PACKAGES[packages.DEFAULT].module == account.IMAGENET_PACKAGE


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
    for name in ('features', 'check'):  # Made of the records that go.
        (output / name).mkdir()
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
