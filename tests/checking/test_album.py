"""What is seen of the pictures of records, and kept."""

import os
import shutil

import numpy as np
import pytest

from finetune.checking import album
from finetune.checking.album import Album
from finetune.console.errors import Error
from tests import toy_run


@pytest.fixture
def looked_at(monkeypatch) -> list[bytes]:
    look, seen = album.look, []

    def counting(encoded):
        seen.append(encoded)
        return look(encoded)

    monkeypatch.setattr(album, 'look', counting)
    return seen


def records(directory, **per_class):
    shutil.rmtree(directory, ignore_errors=True)
    return toy_run.write_records(directory, **per_class)


def read(data, directory=None) -> Album:
    return album.read(data, tuple(data.splits), directory=directory)


def assert_equal(one: Album, other: Album) -> None:
    assert (one.splits, one.class_names, one.filenames) == (other.splits, other.class_names, other.filenames)
    np.testing.assert_array_equal(one.split, other.split)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.glimpses.tobytes() == other.glimpses.tobytes()


def test_an_album_is_in_the_order_of_the_shards_whatever_was_kept(tmp_path, looked_at):
    data = records(tmp_path / 'records', train=[0, 3, 2, 0], validation=[0, 0, 3, 0])
    seen = read(data, tmp_path)
    assert [seen.name(place) for place in (0, 1, 5)] == [
        b'train/blue/0.jpg', b'train/blue/2.jpg', b'validation/green/0.jpg']
    assert list(seen.labels) == [1, 1, 2, 1, 2, 2, 2, 2]
    for place, filename in enumerate(seen.filenames):
        number = int(filename.split(b'/')[1].split(b'.')[0])
        assert seen.glimpses[place].tobytes() == album.look(toy_run.picture(number)).tobytes()
    assert_equal(read(data, tmp_path), seen)
    assert_equal(read(data), seen)


def test_only_new_pictures_are_looked_at(tmp_path, looked_at):
    read(records(tmp_path / 'records', train=[0, 6, 0, 0], validation=[0, 0, 3, 0]), tmp_path)
    assert len(looked_at) == 9
    data = records(tmp_path / 'records', train=[0, 0, 2, 0], validation=[0, 4, 5, 0])  # 0 to 8; 6, 7 and 8 are new.
    del looked_at[:]
    seen = read(data, tmp_path)
    assert sorted(looked_at) == sorted(map(toy_run.picture, (6, 7, 8)))
    assert_equal(seen, read(data))
    del looked_at[:]
    read(data, tmp_path)
    assert not looked_at


@pytest.mark.parametrize(
    'harm', ['cut short', 'a bit turned', 'empty', 'other columns', 'another look', 'the beginning'])
def test_what_is_damaged_or_of_another_look_is_looked_at_again(tmp_path, looked_at, harm, monkeypatch):
    data = records(tmp_path / 'records', train=[0, 6, 0, 0])
    seen, kept = read(data), tmp_path / 'glimpses.npy'
    read(data, tmp_path)
    content = kept.read_bytes()
    if harm == 'cut short':
        os.truncate(kept, 500)
    elif harm == 'a bit turned':
        kept.write_bytes(content[:-50] + bytes([content[-50] ^ 4]) + content[-49:])
    elif harm == 'empty':
        kept.write_bytes(b'')
    elif harm == 'other columns':
        np.save(kept, np.zeros(6))
    elif harm == 'another look':
        monkeypatch.setattr(album, 'LOOK', album.LOOK + 1)
    elif harm == 'the beginning':
        kept.write_bytes(bytes(200) + content[200:])
    del looked_at[:]
    assert_equal(read(data, tmp_path), seen)
    assert len(looked_at) == (1 if harm == 'a bit turned' else 6)
    if harm != 'another look':
        assert kept.read_bytes() == content


def test_what_was_seen_of_records_that_are_replaced_meanwhile_is_not_kept(tmp_path, monkeypatch):
    data, look = records(tmp_path / 'records', train=[0, 6, 0, 0]), album.look

    def replacing(encoded):
        if not (tmp_path / 'replaced').exists():
            (tmp_path / 'replaced').write_text('')
            records(tmp_path / 'records', train=[0, 0, 7, 0])
        return look(encoded)

    monkeypatch.setattr(album, 'look', replacing)
    with pytest.raises(Error, match='built again'):
        read(data, tmp_path)
    assert not (tmp_path / 'glimpses.npy').exists()
