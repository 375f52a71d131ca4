"""Pictures into folders by their answers, on whatever names and file systems."""

import errno
import os
import unicodedata
from pathlib import Path

import pytest

from finetune.console.errors import Error
from finetune.predicting import sorting


def write(path: Path, content: bytes = b'a picture') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Folders ------------------------------------------------------------------------------------------------


HOSTILE = [
    '..', '.', '', ' ', '/', '../../etc', 'a/b', 'a\\b', '/etc/passwd', '.hidden', 'new\nline', '\x1b[31m', 'nul\0',
    'C:', '*?',
    'x' * 300, 'x' * 301, '\u732b' * 200, 'Rose', 'rose', 'ROSE', 'rose_2', 'caf\u00e9',
    unicodedata.normalize('NFD', 'caf\u00e9'),
    'unknown', 'Unknown', 'no_answer', 'suffix.' + 'x' * 300,
    '\u202egpj', 'end. ', '\udcff\udcfe', '-rf', '=1+1', 'stra\u00dfe', 'STRASSE']


def test_every_label_has_a_folder_of_its_own_whatever_it_is_called(tmp_path):
    tmp_path, found = tmp_path / 'sorted', sorting.folder_names(HOSTILE)
    tmp_path.mkdir()
    assert list(found) == [None, *HOSTILE]
    folded = {unicodedata.normalize('NFC', name.casefold()) for name in found.values()}
    assert len(folded) == len(found)  # Where upper and lower case are the same name, too.
    for name in found.values():
        (tmp_path / name).mkdir()  # A single one, directly in here.
        assert name.isprintable() and not name.startswith('.') and not set(name) & set('/\\:*?"<>|')
    assert len(names(tmp_path)) == len(found)


def test_a_label_that_can_be_a_folder_is_one():
    labels = ['unknown', 'daisy', 'wei\u00dfe Rose', '\u732b \U0001f600', "it's", '-rf', '$(x)']
    assert sorting.folder_names(labels) == {None: 'no_answer', **{label: label for label in labels}}


# Links and copies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('by', sorting.WAYS)
def test_pictures_of_one_name_stand_side_by_side_and_a_second_time_adds_nothing(tmp_path, by):
    pictures = [write(tmp_path / f'{where}/1.jpg', where.encode()) for where in ('a', 'b', 'c')]
    folder = tmp_path / 'sorted/rose'
    assert [sorting.put(str(path), folder, by) for path in pictures] == [True] * 3
    for order in (pictures, reversed(pictures)):
        assert [sorting.put(str(path), folder, by) for path in order] == [False] * 3
    assert {path.read_bytes() for path in folder.iterdir()} == {b'a', b'b', b'c'}
    assert len(names(folder)) == 3 and '1.jpg' in names(folder)
    (folder / '1.jpg').unlink()
    assert [sorting.put(str(path), folder, by) for path in reversed(pictures)] == [False, False, True]


def test_a_link_leads_to_its_picture_from_wherever_it_is_looked_at(tmp_path, monkeypatch):
    write(tmp_path / 'photos/a.jpg')
    monkeypatch.chdir(tmp_path)
    sorting.put('photos/a.jpg', Path('sorted/rose'), 'link')
    assert (tmp_path / 'sorted/rose/a.jpg').readlink() == tmp_path / 'photos/a.jpg'


def test_a_copy_is_a_file_of_its_own_with_the_time_of_the_picture(tmp_path):
    picture = write(tmp_path / 'a.jpg')
    os.utime(picture, (1e9, 1e9))
    sorting.put(str(picture), tmp_path / 'rose', 'copy')
    (tmp_path / 'rose/a.jpg').write_bytes(b'edited')
    assert picture.read_bytes() == b'a picture' and (tmp_path / 'rose/a.jpg').lstat().st_nlink == 1
    assert sorting.put(str(picture), tmp_path / 'rose', 'copy')  # What somebody edited stays too.
    assert {path.read_bytes() for path in (tmp_path / 'rose').iterdir()} == {b'edited', b'a picture'}
    assert {path.stat().st_mtime for path in (tmp_path / 'rose').iterdir()} > {1e9}


@pytest.mark.parametrize('by', sorting.WAYS)
@pytest.mark.parametrize('in_the_way', ['file', 'folder', 'link', 'dangling link'])
def test_what_stands_there_under_the_name_stays(tmp_path, by, in_the_way):
    picture, mine = write(tmp_path / 'a.jpg'), tmp_path / 'rose/a.jpg'
    other = write(tmp_path / 'other.jpg', b'other')
    mine.parent.mkdir()
    {'file': lambda: mine.write_bytes(b'mine'), 'folder': mine.mkdir, 'link': lambda: mine.symlink_to(other),
     'dangling link': lambda: mine.symlink_to('nowhere')}[in_the_way]()
    before = mine.lstat()
    assert sorting.put(str(picture), tmp_path / 'rose', by) and not sorting.put(str(picture), tmp_path / 'rose', by)
    assert mine.lstat().st_ino == before.st_ino and mine.lstat().st_mtime == before.st_mtime
    assert other.read_bytes() == b'other' and len(names(tmp_path / 'rose')) == 2


@pytest.mark.parametrize('by', sorting.WAYS)
def test_names_as_long_as_they_can_be_stand_there_twice(tmp_path, by):
    for name in ('\u732b' * 83 + '.jpeg', 'x.' + 'y' * 253):
        for where in ('a', 'b'):
            assert sorting.put(str(write(tmp_path / where / name, where.encode())), tmp_path / name[0], by)
        assert len(names(tmp_path / name[0])) == 2
    assert all(each.endswith('.jpeg') for each in names(tmp_path / '\u732b'))


@pytest.mark.parametrize('by', sorting.WAYS)
def test_a_disk_that_is_full_is_one_sentence_and_leaves_no_half_a_picture(tmp_path, by, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    picture = write(tmp_path / 'a.jpg')
    monkeypatch.setattr(sorting.os, 'symlink', full)
    monkeypatch.setattr(sorting.shutil, 'copyfileobj', full)
    with pytest.raises(Error, match=r'rose: No space left on device.*--sort_into'):
        sorting.put(str(picture), tmp_path / 'rose', by)
    assert names(tmp_path / 'rose') == []


def test_where_the_file_system_has_no_links_there_are_copies(tmp_path, monkeypatch, capsys):
    def refused(*args, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    assert sorting.prepare(tmp_path / 'sorted', 'link') == 'link' and names(tmp_path / 'sorted') == []
    monkeypatch.setattr(sorting.os, 'symlink', refused)
    monkeypatch.setattr(sorting.os, 'link', refused)
    assert sorting.prepare(tmp_path / 'sorted', 'link') == 'copy'
    assert 'copies' in capsys.readouterr().err
    pictures = [write(tmp_path / f'{where}/1.jpg', where.encode()) for where in ('a', 'b')]
    for is_new in (True, False):
        assert [sorting.put(str(path), tmp_path / 'sorted/rose', 'copy') for path in pictures] == [is_new] * 2
    assert {path.read_bytes() for path in (tmp_path / 'sorted/rose').iterdir()} == {b'a', b'b'}


# What is its own -----------------------------------------------------------------------------------------


def test_links_of_an_earlier_answer_are_known(tmp_path):
    picture = write(tmp_path / 'a.jpg')
    for folder in ('rose', 'tulip', 'of mine'):
        sorting.put(str(picture), tmp_path / 'sorted' / folder, 'link')
    write(tmp_path / 'sorted/rose/no_link.jpg')
    put_away = sorting.sorter(tmp_path / 'sorted', ['rose', 'tulip', 'lily'], 'link')
    assert list(put_away(str(picture), 'rose')) == ['there', 'elsewhere']
    assert list(put_away(str(picture), 'lily')) == ['new', 'elsewhere']
    assert list(put_away(str(write(tmp_path / 'b.jpg')), 'lily')) == ['new']


def test_what_is_no_file_is_put_nowhere(tmp_path):
    os.mkfifo(tmp_path / 'fifo.jpg')
    (tmp_path / 'dangling.jpg').symlink_to('nowhere')
    put_away = sorting.sorter(tmp_path / 'sorted', ['rose'], 'copy')
    for name in ('fifo.jpg', 'dangling.jpg', 'missing.jpg', '.', 'nul\0', 'x' * 5000):
        assert list(put_away(f'{tmp_path}/{name}', None)) == []
    assert not (tmp_path / 'sorted').exists()


def test_what_lies_in_the_directory_is_known_by_whatever_way_it_is_reached(tmp_path):
    directory = tmp_path / 'photos/sorted'
    picture = write(tmp_path / 'photos/a.jpg')
    sorting.put(str(picture), directory / 'rose', 'link')
    (tmp_path / 'other_way').symlink_to(directory)
    write(tmp_path / 'photos/sorted_by_hand/b.jpg')
    for inside in (directory, directory / 'rose', directory / 'rose/a.jpg', tmp_path / 'other_way',
                   tmp_path / 'other_way/rose/a.jpg', directory / '../sorted/rose'):
        assert sorting.lies_in(str(inside), directory), inside
    for outside in (picture, tmp_path / 'photos', tmp_path / 'photos/sorted_by_hand/b.jpg'):
        assert not sorting.lies_in(str(outside), directory), outside
