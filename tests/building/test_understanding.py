"""What a folder, an archive or a list is taken for, before any work."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from finetune import build
from finetune.building import understanding
from finetune.console import errors
from finetune.records import dataset
from tests import toy


def understand(path: Path, labels: str | None = None, **options) -> understanding.Understood:
    return understanding.understand(path, Path(path).parent / 'project' / 'unpacked', labels, **options)


def told(path: Path, labels: str | None = None, **options) -> str:
    with pytest.raises(errors.Error) as caught:
        understand(path, labels, **options)
    return str(caught.value)


def archived(directory: Path, suffix: str = '.zip') -> Path:
    path = directory.with_name(f'photos{suffix}')
    if suffix == '.zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for file in sorted(directory.rglob('*')):
                archive.write(file, file.relative_to(directory.parent))
    else:
        with tarfile.open(path, 'w:gz') as archive:
            archive.add(directory, 'photos')
    shutil.rmtree(directory)
    return path


def parts(directory: Path, *names: str) -> Path:
    for place, name in enumerate(names):
        toy.class_folders(directory / name, {'cat': 3, 'dog': 2}, first=10 * place)
    return directory


# ---- folders ----


def test_class_folders_train(tmp_path):
    found = understand(toy.class_folders(tmp_path / 'P', {'cat': 3, 'dog': 2}))
    assert found.flags == {'train_directory': f'{tmp_path}/P'}
    assert found.lines == [f'{tmp_path}/P: 5 pictures of 2 classes: cat, dog']


@pytest.mark.parametrize(('names', 'splits'), [
    (['train', 'val', 'test'], ['train', 'validation', 'test']), (['Training', 'valid'], ['train', 'validation']),
    (['train_images', 'validation_images', 'test_images'], ['train', 'validation', 'test']),
    (['train', 'dev'], ['train', 'validation']), (['train', 'test'], ['train', 'test']), (['train'], ['train'])])
@pytest.mark.parametrize('wrapper', ['', 'dataset', 'a/b'])
def test_the_parts_of_a_data_set_are_given_to_their_splits(tmp_path, names, splits, wrapper):
    parts(tmp_path / 'P' / wrapper, *names)
    found = understand(tmp_path / 'P')
    assert found.flags == {f'{split}_directory': str(tmp_path / 'P' / wrapper / name)
                           for split, name in zip(splits, names, strict=True)}
    assert f'  {splits[-1]}: 5 pictures of 2 classes: cat, dog' in found.lines


def test_a_part_that_is_not_used_is_told(tmp_path):
    parts(tmp_path / 'P', 'train', 'validation', 'dev')
    toy.class_folders(tmp_path / 'P', {'docs': 1})
    (tmp_path / 'P' / 'banner.jpg').touch()
    found = understand(tmp_path / 'P')
    assert list(found.flags) == ['train_directory', 'validation_directory']
    assert [line.removeprefix('  left out: ') for line in found.lines if 'left out' in line] == [
        'dev/: another folder is that part', 'docs/: it is called as no part of a data set is',
        '1 picture beside these folders']


def test_a_part_without_class_folders_is_left_out(tmp_path):
    parts(tmp_path / 'P', 'train', 'validation')
    toy.class_folders(tmp_path / 'P', {'test': 3})  # Pictures without classes, as of a competition.
    found = understand(tmp_path / 'P')
    assert list(found.flags) == ['train_directory', 'validation_directory']
    assert '  left out: test/: it holds no class folders' in found.lines


@pytest.mark.parametrize('names', [['train', 'bus'], ['train', 'bus/old'], ['test', 'bus', 'dev/old']])
def test_classes_that_are_called_as_parts_are_classes(tmp_path, names):
    assert list(understand(toy.class_folders(tmp_path / 'P', dict.fromkeys(names, 2))).flags) == ['train_directory']
    assert understand(tmp_path / 'P').lines[0].split(':')[0] == f'{tmp_path}/P'


def test_what_is_understood_can_be_built(tmp_path):
    found = understand(parts(tmp_path / 'P', 'train', 'val', 'test'))
    flags = [f'--{name}={value}' for name, value in found.flags.items()]
    assert build.main([*flags, f'--output_directory={tmp_path}/out', '--num_threads=1']) == 0
    assert {name: split.records for name, split in dataset.open_records(tmp_path / 'out').splits.items()} == {
        'train': 5, 'validation': 5, 'test': 5}


def test_one_class_beside_nothing_is_no_wrapper(tmp_path):
    assert understand(toy.class_folders(tmp_path / 'P', {'cat': 2})).flags == {'train_directory': f'{tmp_path}/P'}


def test_folders_inside_classes_are_read_when_asked(tmp_path):
    toy.class_folders(tmp_path / 'P', {'cat/old': 2, 'dog/new': 1})
    assert 'add --recursive' in told(tmp_path / 'P')
    assert understand(tmp_path / 'P', recursive=True).lines == [f'{tmp_path}/P: 3 pictures of 2 classes: cat, dog']


def test_a_folder_whose_name_is_no_text_is_a_folder(tmp_path):
    directory = toy.class_folders(tmp_path / os.fsdecode(b'P\xff\n'), {'cat': 1, 'dog': 1})
    found = understand(directory)
    assert found.flags == {'train_directory': str(directory)} and '\n' not in found.lines[0]


# ---- what is neither ----


@pytest.mark.parametrize('url', ['https://example.com/photos.zip', 'gs://bucket/photos', 's3://bucket'])
def test_an_address_is_not_fetched(tmp_path, url):
    with pytest.raises(errors.UsageError, match='download it'):
        understanding.understand(url, tmp_path)


def test_what_is_not_there_is_told(tmp_path):
    assert 'there is no such folder or archive' in told(tmp_path / 'P')


@pytest.mark.parametrize(('name', 'content', 'expected'), [
    ('a.csv', b'file,label\n', 'add --labels_csv={}'),
    ('a.jpg', toy.encoded(toy.picture()), 'Name the folder that holds'),
    ('a.zip', b'<html>', 'no archive (zip or tar)'), ('a', b'', 'no archive (zip or tar)')])
def test_a_file_that_is_no_archive_is_told_with_the_way_out(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected.format(tmp_path / name) in told(tmp_path / name)
    assert not (tmp_path / 'project').exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'photos.tar')
    assert 'is no folder and no archive' in told(tmp_path / 'photos.tar')


def test_an_empty_folder_and_one_of_loose_pictures_are_told(tmp_path):
    (tmp_path / 'P').mkdir()
    assert told(tmp_path / 'P').startswith(f'{tmp_path}/P holds no pictures. The layout is')
    toy.class_folders(tmp_path, {'P': 3})
    assert 'holds 3 pictures but no class folders' in told(tmp_path / 'P') and '--labels_csv' in told(tmp_path / 'P')


def test_parts_without_one_to_train_on_or_without_classes_are_told(tmp_path):
    assert 'is for training' in told(parts(tmp_path / 'P', 'val', 'test'))
    assert 'no class folders' in told(toy.class_folders(tmp_path / 'Q', {'train': 3, 'test': 2}))


def test_an_empty_part_is_told_by_its_name(tmp_path):
    parts(tmp_path / 'P', 'train')
    (tmp_path / 'P' / 'val' / 'cat').mkdir(parents=True)
    assert told(tmp_path / 'P').startswith(f'{tmp_path}/P/val holds no pictures')


# ---- archives ----


@pytest.mark.parametrize('suffix', ['.zip', '.tar.gz'])
def test_an_archive_is_unpacked_into_the_project_and_understood(tmp_path, suffix):
    path = archived(toy.class_folders(tmp_path / 'photos', {'cat': 3, 'dog': 2}), suffix)
    unpacked = tmp_path / 'project' / 'unpacked'
    for _ in range(2):
        found = understand(path)
        assert found.flags == {'train_directory': f'{unpacked}/photos'}
        assert found.lines == [f'{path}: a {suffix[1:4]} archive of 5 files, unpacked into {unpacked}',
                               f'{unpacked}/photos: 5 pictures of 2 classes: cat, dog']


def test_parts_in_an_archive_are_found_and_what_was_left_out_is_told_each_time(tmp_path):
    path = archived(parts(tmp_path / 'photos', 'train', 'val'))
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('__MACOSX/._photos', b'x')
        archive.writestr('../evil.jpg', b'x')
    for _ in range(2):
        found = understand(path)
        assert list(found.flags) == ['train_directory', 'validation_directory']
        assert found.lines[1:3] == [
            '  left out of it: 1 file whose names lead out of the folder, for example ../evil.jpg',
            '  left out of it: 1 file which macOS puts beside others, for example __MACOSX/._photos']


def test_a_damaged_archive_is_one_sentence(tmp_path):
    path = archived(toy.class_folders(tmp_path / 'photos', {'cat': 3, 'dog': 2}))
    path.write_bytes(path.read_bytes()[:-100])
    assert 'cut short, damaged' in told(path) and not list((tmp_path / 'project').iterdir())


# ---- lists ----


@pytest.mark.parametrize('kind', ['folder', 'archive'])
def test_the_files_of_a_list_are_understood(tmp_path, kind):
    directory = toy.class_folders(tmp_path / 'photos', {'images': 4})
    path = archived(directory) if kind == 'archive' else directory
    labels = tmp_path / 'labels.csv'
    labels.write_text('file,label,split\n' + ''.join(
        f'images/{number}.jpg,{label},{split}\n'
        for number, label, split in ((0, 'cat', ''), (1, 'dog', 'train'), (2, 'cat', 'val'), (7, 'cat', ''))))
    found = understand(path, str(labels))
    where = f'{tmp_path}/project/unpacked/photos' if kind == 'archive' else str(directory)
    assert found.flags == {'train_directory': where, 'labels_csv': str(labels)}
    assert found.lines[-4:] == [
        f'{labels} lists files in {where}', '  train: 2 pictures of 2 classes: cat, dog',
        '  validation: 1 picture of 1 class: cat',
        f'  left out: 1 file, for example {where}/images/7.jpg: the list names it, and there is no such file']
