import pytest

from tests import toy
from tools import split_photos


def names(directory) -> set[str]:
    return {f'{path.parent.name}/{path.name}' for path in directory.glob('*/*')}


def contents(directory) -> set[bytes]:
    return {path.read_bytes() for path in directory.glob('*/*')}


def test_every_picture_is_in_one_split_whatever_it_is_called(tmp_path):
    photos = toy.class_folders(tmp_path / 'photos', {'cat': 9, 'dog': 7})
    assert split_photos.split(photos, tmp_path / 'first', 3) == {'train': 10, 'validation': 6}
    train, validation = names(tmp_path / 'first/train'), names(tmp_path / 'first/validation')
    assert train | validation == names(photos) and not train & validation
    chosen = contents(tmp_path / 'first/validation')
    (photos / 'cat/0.jpg').rename(photos / 'cat/renamed.jpg')
    split_photos.split(photos, tmp_path / 'second', 3)
    assert contents(tmp_path / 'second/validation') == chosen


def test_a_class_that_would_have_nothing_to_train_on_is_named(tmp_path):
    photos = toy.class_folders(tmp_path / 'photos', {'cat': 9, 'dog': 3})
    (photos / 'cat/.DS_Store').write_bytes(b'')
    with pytest.raises(SystemExit, match='dog has 3 pictures'):
        split_photos.split(photos, tmp_path / 'split', 3)
    assert not (tmp_path / 'split').exists()  # Or the mended command would be refused: it is there already.
    split_photos.split(photos, tmp_path / 'split', 2)
    assert '.DS_Store' not in ' '.join(names(tmp_path / 'split/train'))


def test_hidden_folders_are_no_classes(tmp_path):
    photos = toy.class_folders(tmp_path / 'photos', {'cat': 9, '.git': 1})
    assert split_photos.split(photos, tmp_path / 'split', 3) == {'train': 6, 'validation': 3}
