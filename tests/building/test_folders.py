"""Class folders and labels files: which picture has which number."""

import errno
import os
import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.building.sources import folders, labels, layout
from finetune.console import errors
from finetune.pictures import gate
from tests import toy


def listing(directory, **options) -> folders.Listing:
    return folders.list_pictures(directory, 'train_directory', **options)


def source(directory, names=('background', 'cat', 'dog'), **options) -> folders.ClassFolders:
    loader = folders.FolderLoader(os.fsencode(directory))
    return folders.ClassFolders(listing(directory, **options), names, loader)


def error(directory, check=layout.check_pictures, **options) -> str:
    with pytest.raises(errors.Error) as caught:
        check(listing(directory, **options))
    return str(caught.value)


def reasons(found: folders.Listing) -> dict[str, str]:
    """Of what was skipped, by its path below the directory."""
    return {os.fsdecode(os.path.relpath(skip.path, found.directory)): skip.reason for skip in found.skipped}


# ---- folders ----


def test_every_picture_is_listed_once_with_the_number_of_its_folder(tmp_path):
    toy.class_folders(tmp_path, {'cat': 7, 'dog': 4, 'background': 2})
    images = list(source(tmp_path).images(seed=1))
    assert sorted((image.label, image.filename) for image in images) == sorted(
        [(1, b'cat/%d.jpg' % i) for i in range(7)] + [(2, b'dog/%d.jpg' % i) for i in range(4)]
        + [(0, b'background/%d.jpg' % i) for i in range(2)])
    assert source(tmp_path).per_label == [2, 7, 4]


def test_the_order_depends_on_the_seed_and_not_on_the_file_system(tmp_path):
    toy.class_folders(tmp_path / 'a', {'cat': 9, 'dog': 9})
    for name in ('dog', 'cat'):
        for number in (8, 2, 5, 0, 7, 1, 3, 6, 4):
            path = tmp_path / 'b' / name / f'{number}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    order = [image.filename for image in source(tmp_path / 'a').images(seed=5)]
    assert order == [image.filename for image in source(tmp_path / 'b').images(seed=5)]
    assert order != [image.filename for image in source(tmp_path / 'a').images(seed=6)]
    assert order != sorted(order)


def test_files_that_claim_to_be_no_picture_are_counted_and_not_read(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1})
    for name in ('.DS_Store', '._0.jpg', 'Thumbs.db', '0.jpg~', '0.jpg.part', 'no_suffix', 'notes.txt'):
        (tmp_path / 'cat' / name).touch()
    found = listing(tmp_path)
    assert found.pictures == {b'cat': [b'0.jpg']}
    assert found.ignored == {'hidden_file': 2, 'not_an_image_suffix': 5}


def test_what_is_passed_over_is_named_by_its_suffix_with_an_example(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1, 'dog': 1})
    for name in ('dog/b.xyz', 'dog/a.XYZ', 'cat/photo', 'dog/.DS_Store', 'labels.txt'):
        (tmp_path / name).touch()
    remark, = source(tmp_path).remarks()
    assert (f'2 files named .xyz (for example {tmp_path}/dog/a.XYZ), 1 file without a suffix (for example '
            f'{tmp_path}/cat/photo)') in remark
    assert 'labels.txt' not in remark and 'DS_Store' not in remark


def test_very_many_suffixes_stay_one_line(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1, 'dog': 1})
    for number in range(1000):
        (tmp_path / 'cat' / f'frame.{number}').touch()
    remark, = source(tmp_path).remarks()
    assert 'named .0 ' in remark and 'and 995 more suffixes' in remark and len(remark) < 200 + 10 * len(str(tmp_path))


@pytest.mark.parametrize('name', ['a.dng', 'a.CR2', 'a.tga'])
def test_pictures_that_only_their_names_tell_are_listed_and_not_passed_over(tmp_path, name):
    toy.class_folders(tmp_path, {'cat': 1})
    (tmp_path / 'cat' / name).write_bytes(b'II*\0' + bytes(90))
    assert reasons(listing(tmp_path)) == {f'cat/{name}': 'unsupported_format'}
    assert 'convert it' in listing(tmp_path).skipped[0].detail


@pytest.mark.parametrize(('names', 'expected'), [
    (['ne/a.xyz', 'ne/b.xyz'], '2 files named .xyz (for example {}/ne/a.xyz)'),
    (['a.xyz', 'b.xyz', 'ne/c.xyz'], '3 files named .xyz (for example {}/'),
    (['ne/a.dng'], '1 file named .dng (for example {}/ne/a.dng)'), (['a.tga'], 'holds 1 pictures but no class folders'),
    (['ne/a'], '1 file without a suffix (for example {}/ne/a)')])
def test_a_folder_of_what_is_not_read_here_is_not_called_empty(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    told = error(tmp_path)
    assert expected.format(tmp_path) in told and 'holds no pictures. ' not in told


def test_every_suffix_that_pictures_have_is_read_in_any_case(tmp_path):
    (tmp_path / 'cat').mkdir()
    names = ['a.JPG', 'b.jpeg', 'c.JFIF', 'd.jpe', 'e.PnG', 'f.gif', 'g.webp', 'h.bmp', 'i.tif', 'j.heic',
             'k.avif', 'l.JP2', 'm.ppm', 'n.pgm']
    for name in names:
        (tmp_path / 'cat' / name).touch()
    assert listing(tmp_path).pictures == {b'cat': [name.encode() for name in names]}


def test_folders_that_tools_leave_behind_are_no_classes(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1, '__MACOSX': 1, '@eaDir': 1, '.ipynb_checkpoints': 1, 'lost+found': 1})
    found = listing(tmp_path)
    assert list(found.pictures) == [b'cat']
    assert sorted(skip.reason for skip in found.skipped) == ['hidden_folder'] + 3 * ['system_folder']


@pytest.mark.parametrize('recursive', [False, True])
def test_thumbnails_that_tools_leave_inside_classes_are_no_pictures_of_them(tmp_path, recursive):
    """A Synology keeps one of every picture in @eaDir, at every depth."""
    toy.class_folders(tmp_path, {'cat': 1, 'cat/@eaDir': 2, 'cat/old': 1, 'cat/old/@eaDir': 2, 'cat/.thumbnails': 2})
    found = listing(tmp_path, recursive=recursive)
    assert found.pictures == {b'cat': [b'0.jpg', b'old/0.jpg'] if recursive else [b'0.jpg']}
    assert found.ignored == {'system_folder': 2 if recursive else 1, 'hidden_folder': 1}
    assert [skip.reason for skip in found.skipped] == ([] if recursive else ['nested_folder'])


def test_nested_folders_are_counted_unless_they_are_asked_for(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1, 'cat/old/older': 3})
    skip, = listing(tmp_path).skipped
    assert (skip.reason, skip.path) == ('nested_folder', os.fsencode(tmp_path / 'cat' / 'old'))
    assert '3 pictures' in skip.detail and '--recursive' in skip.detail
    found = listing(tmp_path, recursive=True)
    assert not found.skipped
    assert found.pictures == {b'cat': [b'0.jpg', b'old/older/0.jpg', b'old/older/1.jpg', b'old/older/2.jpg']}


def test_a_link_to_the_parent_folder_does_not_multiply_the_pictures(tmp_path):
    toy.class_folders(tmp_path, {'cat': 2})
    (tmp_path / 'cat' / 'up').symlink_to('..')
    for recursive, reason in ((False, 'nested_folder'), (True, 'symlink_loop')):
        found = listing(tmp_path, recursive=recursive)
        assert found.pictures == {b'cat': [b'0.jpg', b'1.jpg']}
        assert reasons(found) == {'cat/up': reason}


@pytest.mark.parametrize('recursive', [False, True])
@pytest.mark.parametrize('target', ['.', '..', '../..', '/', 'loop', '../D'])
def test_a_link_upwards_is_no_class_and_is_told(tmp_path, target, recursive):
    toy.class_folders(tmp_path / 'D', {'cat': 1})
    toy.class_folders(tmp_path / 'other', {'dog': 1})
    (tmp_path / 'D' / 'loop').symlink_to(target)
    found = listing(tmp_path / 'D', recursive=recursive)
    assert found.pictures == {b'cat': [b'0.jpg']}
    assert reasons(found) == {'loop': 'symlink_loop'}
    assert any(f'{tmp_path}/D/loop' in remark for remark in source(tmp_path / 'D').remarks())


def test_folders_that_lead_to_each_other_are_read_once_on_every_way(tmp_path):
    toy.class_folders(tmp_path, {'D/cat': 1, 'elsewhere': 1})
    (tmp_path / 'D' / 'cat' / 'there').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'D' / 'cat')
    (tmp_path / 'elsewhere' / 'up').symlink_to(tmp_path)
    found = listing(tmp_path / 'D', recursive=True)
    assert found.pictures == {b'cat': [b'0.jpg', b'there/0.jpg']}
    assert reasons(found) == {'cat/there/back': 'symlink_loop', 'cat/there/up': 'symlink_loop'}


def test_folders_that_are_full_of_links_to_each_other_are_not_read_on_every_way(tmp_path):
    """Of ten there are ten million ways."""
    names = [f'{number}' for number in range(10)]
    toy.class_folders(tmp_path, {f'D/cat/{name}': 1 for name in names})
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / 'D' / 'cat' / name / f'to{other}').symlink_to(f'../{other}')
    found = listing(tmp_path / 'D', recursive=True)
    assert {f'{name}/0.jpg'.encode() for name in names} <= set(found.pictures[b'cat'])
    assert len(found.pictures[b'cat']) <= 2 * len(names)
    assert found.ignored['symlink_again'] and not any(skip.reason == 'symlink_again' for skip in found.skipped)


@pytest.fixture
def deep_tmp_path(tmp_path):
    """What is in it goes at the end: Python cannot remove folders so deep, and pytest would fail at it much later."""
    yield tmp_path
    subprocess.run(['rm', '-r', *tmp_path.iterdir()], check=True)


@pytest.mark.parametrize('recursive', [False, True])
def test_folders_lie_in_each_other_as_deep_as_the_system_allows(deep_tmp_path, recursive):
    """1,500 are more than the calls that Python lets stand in each other."""
    tmp_path = deep_tmp_path
    toy.class_folders(tmp_path, {'cat': 1})
    inner = os.open(tmp_path / 'cat', os.O_RDONLY)
    for _ in range(1500):
        os.mkdir('d', dir_fd=inner)
        outer, inner = inner, os.open('d', os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open('1.jpg', os.O_CREAT | os.O_WRONLY, dir_fd=inner))
    os.close(inner)
    found = listing(tmp_path, recursive=recursive)
    assert len(found.pictures[b'cat']) == 1 + recursive
    assert recursive or '1 picture ' in found.skipped[0].detail


def test_a_directory_that_is_named_through_a_link_is_where_it_really_is(tmp_path):
    toy.class_folders(tmp_path / 'real' / 'D', {'cat': 1})
    (tmp_path / 'real' / 'D' / 'up').symlink_to('..')
    (tmp_path / 'link').symlink_to('real/D')
    assert reasons(listing(tmp_path / 'link', recursive=True)) == {'up': 'symlink_loop'}


def test_a_linked_folder_inside_a_class_is_read_when_nested_ones_are(tmp_path):
    toy.class_folders(tmp_path, {'D/cat': 1, 'elsewhere/old': 1})
    (tmp_path / 'D' / 'cat' / 'more').symlink_to(tmp_path / 'elsewhere')
    assert reasons(listing(tmp_path / 'D')) == {'cat/more': 'nested_folder'}
    assert listing(tmp_path / 'D', recursive=True).pictures == {b'cat': [b'0.jpg', b'more/old/0.jpg']}
    found = listing(tmp_path / 'D', recursive=True, follow_symlinks=False)
    assert found.pictures == {b'cat': [b'0.jpg']} and reasons(found) == {'cat/more': 'symlink'}


def test_a_class_that_is_a_link_to_nothing_does_not_vanish(tmp_path):
    """A disk that is not there: the class would be gone without a word, and later ones would get other numbers."""
    toy.class_folders(tmp_path, {'daisies': 1, 'violets': 1})
    (tmp_path / 'tulips').symlink_to('/mnt/not_there/tulips')
    (tmp_path / 'violets' / 'more').symlink_to('/mnt/not_there/violets')
    (tmp_path / 'violets' / '.#lock').symlink_to('somebody@somewhere')  # An editor's; of no use to anybody.
    assert reasons(listing(tmp_path)) == {'tulips': 'symlink_dangling', 'violets/more': 'symlink_dangling'}
    assert any(f'{tmp_path}/tulips' in remark for remark in source(tmp_path).remarks())


def test_links_to_nothing_alone_are_named(tmp_path):
    (tmp_path / 'tulips').symlink_to('/mnt/not_there/tulips')
    assert f'{tmp_path}/tulips is a link to nothing' in error(tmp_path)


def test_a_class_folder_may_be_a_link_unless_links_are_forbidden(tmp_path):
    toy.class_folders(tmp_path / 'elsewhere', {'cat': 2})
    toy.class_folders(tmp_path / 'data', {'dog': 1})
    (tmp_path / 'data' / 'cat').symlink_to('../elsewhere/cat')
    assert set(listing(tmp_path / 'data').pictures) == {b'cat', b'dog'}
    found = listing(tmp_path / 'data', follow_symlinks=False)
    assert set(found.pictures) == {b'dog'}
    assert [skip.reason for skip in found.skipped] == ['symlink']


def test_a_link_to_itself_is_listed_for_the_gate_to_reject(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1})
    (tmp_path / 'cat' / 'loop.jpg').symlink_to('loop.jpg')
    assert listing(tmp_path).pictures == {b'cat': [b'0.jpg', b'loop.jpg']}


def test_a_name_of_any_bytes_is_found_and_read(tmp_path):
    (tmp_path / 'cat').mkdir()
    names = [b'new\nline.jpg', b'\xff\xfe.jpg', b'a[1-9]*?.jpg', b'-rf.jpg', b'\x1b[31mred.jpg']
    for name in names:
        (tmp_path / 'cat' / os.fsdecode(name)).write_bytes(toy.encoded(toy.picture()))
    found = source(tmp_path)
    images = list(found.images(seed=0))
    assert {image.filename for image in images} == {b'cat/' + name for name in names}
    for image in images:
        assert found.loader.load(image.key).width == 32


def test_a_name_that_promises_another_format_is_noted(tmp_path):
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat' / 'a.jpg').write_bytes(toy.encoded(toy.picture(), 'PNG'))
    loader = folders.FolderLoader(os.fsencode(tmp_path), gate.Limits())
    assert loader.load(b'cat/a.jpg').notes == ('suffix_mismatch',)


def test_a_directory_of_another_layout_is_answered_with_the_likely_flags(tmp_path):
    assert 'No such file' in error(tmp_path / 'nothing')
    (tmp_path / 'empty').mkdir()
    assert 'DIRECTORY/CLASS/PICTURE.jpg' in error(tmp_path / 'empty')
    (tmp_path / 'flat').mkdir()
    (tmp_path / 'flat' / 'a.jpg').touch()
    assert 'holds 1 pictures but no class folders' in error(tmp_path / 'flat')
    toy.class_folders(tmp_path / 'D', {'train/cat': 1, 'train/dog': 1, 'validation/cat': 1})
    assert (f'Did you mean --train_directory={tmp_path}/D/train --validation_directory={tmp_path}/D/validation?'
            in error(tmp_path / 'D'))


PARTS_OF_A_SET = [  # Folders with one picture each, and the flags that were likely meant.
    (['train', 'test'], ''), (['train'], ''), (['Training', 'Testing'], ''), (['train_images', 'test_images'], ''),
    (['test1', 'train'], ''), (['val', 'test'], ''),
    (['.', 'train/cat', 'val/cat'], '--train_directory={0}/train --validation_directory={0}/val?'),
    (['train', 'train/cat', 'val/cat'], '--train_directory={0}/train --validation_directory={0}/val?'),
    (['train/cat', 'test'], '--train_directory={0}/train?'),
    (['training_set/cat'], '--train_directory={0}/training_set?'),
    (['TRAIN/cat', 'VALID/cat', 'TEST/cat'],
     '--train_directory={0}/TRAIN --validation_directory={0}/VALID --test_directory={0}/TEST?'),
    (['train/cat', 'test/cat'], '--train_directory={0}/train --test_directory={0}/test?'),
    (['train/cat', 'dev', 'test/cat'], '--train_directory={0}/train --test_directory={0}/test?'),
    (['train/cat', 'val/cat', 'docs'], '--train_directory={0}/train --validation_directory={0}/val?'),
]


@pytest.mark.parametrize('recursive', [False, True])
@pytest.mark.parametrize(('names', 'meant'), PARTS_OF_A_SET)
def test_the_parts_of_a_set_are_not_taken_for_classes(tmp_path, names, meant, recursive):
    toy.class_folders(tmp_path, dict.fromkeys(names, 1))
    (tmp_path / 'annotations').mkdir()  # Without a picture, it makes no other layout of it.
    found = listing(tmp_path, recursive=recursive)
    told = error(tmp_path, layout.check_classes if any(found.pictures.values()) else layout.check_pictures,
                 recursive=recursive)
    assert '--labels_file' in told
    assert (f'Did you mean {meant.format(tmp_path)}' if meant else 'no class folders') in told


@pytest.mark.parametrize(('flag', 'names', 'meant'), [
    ('validation_directory', ['train/cat', 'val/cat', 'test/cat'], 'val'),
    ('validation_directory', ['train/cat', 'test/cat'], 'test'), ('test_directory', ['train/cat', 'val/cat'], 'val'),
    ('test_directory', ['train/cat', 'val/cat', 'tests/cat'], 'tests')])
def test_a_set_given_one_level_too_high_for_one_part_is_answered_with_that_part(tmp_path, flag, names, meant):
    toy.class_folders(tmp_path, dict.fromkeys(names, 1))
    with pytest.raises(errors.Error, match=rf'Did you mean --{flag}={tmp_path}/{meant}\?'):
        layout.check_pictures(folders.list_pictures(tmp_path, flag))


@pytest.mark.parametrize('names', [
    ['train', 'bus'], ['test', 'cat'], ['test'], ['test_tube', 'train'], ['trainé', 'val']])
def test_classes_that_are_called_like_parts_of_a_set_are_classes_beside_others(tmp_path, names):
    toy.class_folders(tmp_path, dict.fromkeys(names, 1))
    layout.check_classes(listing(tmp_path))


def test_folders_of_folders_are_named_and_not_guessed_at(tmp_path):
    toy.class_folders(tmp_path / 'ne', {'plants/rose': 1, 'plants/tulip': 1, 'animals/cat': 1})
    told = error(tmp_path / 'ne')
    assert 'animals, plants are the classes, add --recursive' in told and 'Did you mean' not in told
    toy.class_folders(tmp_path / 'zip', {'flowers/rose': 1, 'flowers/tulip': 1})
    assert f'Did you mean --train_directory={tmp_path}/zip/flowers?' in error(tmp_path / 'zip')


def test_class_folders_that_may_not_be_read_are_not_called_empty(tmp_path, monkeypatch):
    """Root may read everything: the refusal is played."""
    toy.class_folders(tmp_path, {'cat': 1, 'dog': 1})
    scandir = os.scandir

    def refused(path):
        if path != os.fsencode(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refused)
    told = error(tmp_path)
    assert f'{tmp_path}/cat: Permission denied' in told and 'holds no pictures' not in told


def test_a_file_that_will_be_rejected_for_its_size_asks_for_no_room(tmp_path):
    """One file of a terabyte that is called .jpg stopped the build for want of room."""
    toy.class_folders(tmp_path, {'cat': 3})
    room = source(tmp_path).stored_bytes()
    with (tmp_path / 'cat' / 'huge.jpg').open('wb') as file:
        file.truncate(1 << 40)  # Sparse: it takes no room itself.
    assert source(tmp_path).stored_bytes() == room > 0


def test_the_room_for_many_pictures_is_estimated_from_a_sample_of_all_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, 'SIZES_ASKED', 4)
    for folder, size in {'cat': 1000, 'dog': 3000}.items():
        (tmp_path / folder).mkdir()
        for number in range(10):
            (tmp_path / folder / f'{number}.jpg').write_bytes(bytes(size))
    assert 30_000 < source(tmp_path).stored_bytes() < 50_000  # 40,000.


def test_a_file_named_as_a_system_folder_is_just_no_picture(tmp_path):
    toy.class_folders(tmp_path, {'cat': 1})
    (tmp_path / 'cat' / '@eaDir').touch()
    assert listing(tmp_path).ignored == {'not_an_image_suffix': 1}


# ---- labels ----


def read(tmp_path, content: bytes, found=()) -> list[str]:
    path = tmp_path / 'labels.txt'
    path.write_bytes(content)
    return labels.read_labels(path, found)


@pytest.mark.parametrize('content', [
    b'cat\ndog\n', b'cat\ndog', b'cat\r\ndog\r\n', b'\xef\xbb\xbfcat\ndog\n', b'cat\ndog\n\n \n', b'  cat \ndog\t\n'])
def test_what_editors_add_to_a_labels_file_does_not_change_a_label(tmp_path, content):
    assert read(tmp_path, content) == ['cat', 'dog']


@pytest.mark.parametrize(('content', 'expected'), [
    (b'cat\n\ndog\n', 'line 2 is blank'), (b'cat\ndog\ncat\n', "line 3 repeats 'cat' of line 1"),
    ('cat\ndog\n'.encode('utf-16'), 'line 1 is not UTF-8'), (b'cat\ncaf\xe9\n', 'line 2 is not UTF-8'),
    (b'cat\n../../etc\n', 'line 2 (../../etc) cannot be a class'), (b'..\n', 'line 1'), (b'cat\0\n', 'line 1'),
    (b'background\ncat\n', "line 1 is 'background'"), (b'', 'holds no label'), (b'\n\n', 'holds no label'),
])
def test_a_line_that_would_shift_the_numbers_is_an_error_with_its_number(tmp_path, content, expected):
    with pytest.raises(errors.Error) as caught:
        read(tmp_path, content)
    assert f'{tmp_path}/labels.txt' in str(caught.value) and expected in str(caught.value)


def test_blanks_that_belong_to_a_folder_name_stay(tmp_path):
    assert read(tmp_path, b' cat \ndog \n', [b' cat ', b'dog']) == [' cat ', 'dog']


FOLDER_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b'/' not in name and b'\0' not in name and name not in (b'.', b'..', b'background'))


@settings(max_examples=500, deadline=None)
@given(st.sets(FOLDER_NAMES, min_size=1, max_size=6))
def test_labels_of_any_folder_names_survive_the_labels_file(tmp_path_factory, names):
    expected = sorted({labels.label_of(name) for name in names})
    if any(not label.strip() for label in expected):  # A name of blanks alone is one that no line can hold.
        return
    path = tmp_path_factory.getbasetemp() / 'labels.txt'
    path.write_text(''.join(f'{label}\n' for label in expected), encoding='utf-8')
    assert labels.read_labels(path, names) == expected


def test_names_in_two_normal_forms_are_two_classes(tmp_path):
    toy.class_folders(tmp_path, {unicodedata.normalize(form, 'café'): 1 for form in ('NFC', 'NFD')})
    assert len(listing(tmp_path).labels()) == 2
