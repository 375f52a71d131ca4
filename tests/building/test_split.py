"""Which picture trains, validates or tests: decided by its content, class by class."""

import csv
import io
import itertools
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from finetune import build
from finetune.building import conversion, groups, plan
from finetune.console.terminal import printable
from finetune.records import dataset
from tests import toy
from tests.toy_build import beside, digests, manifest, read, run


@pytest.fixture
def pictures(tmp_path) -> Path:
    return toy.class_folders(tmp_path / 'D' / 'train', {'cat': 7, 'dog': 5})


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / 'records' / 'toy'


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


# ---- near-duplicates ----


def findings(path: Path, pairs, kind: str = 'leak', more: str = '') -> Path:
    """As `finetune check` writes them; the names are those of records."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('kind', 'file', 'other_file', 'score', 'suggestion'))
        writer.writerows((kind, printable(one), printable(other), '0.9500', 'keep one') for one, other in pairs)
        file.write(more)
    return path


def series(name: str, *numbers: int, split: str = 'train') -> list[tuple[str, str]]:
    """A chain: only neighbours in it are called nearly the same."""
    return [(f'{split}/{name}/{one}.jpg', f'{split}/{name}/{other}.jpg')
            for one, other in itertools.pairwise(numbers)]


def torn(output: Path, group: set[bytes]) -> bool:
    return sum(bool(group & names(output, split)) for split in dataset.open_records(output).splits) > 1


@pytest.mark.parametrize('kind', groups.KINDS)
def test_pictures_that_check_found_nearly_the_same_stay_on_one_side(tmp_path, output, kind, capsys):
    """Frames of a film, or a photo and its crop, were learned and measured; copies alone stayed together."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 40, 'dog': 40})
    sets = [range(first, first + 4) for first in range(0, 40, 4)]
    pairs = [pair for numbers in sets for pair in series('cat', *numbers)]
    run(pictures, tmp_path / 'before')
    assert any(torn(tmp_path / 'before', {b'cat/%d.jpg' % number for number in numbers}) for numbers in sets)
    run(pictures, output, f'--group_near_duplicates={findings(tmp_path / "findings.csv", pairs, kind)}',
        '--test_percent=20')
    assert not any(torn(output, {b'cat/%d.jpg' % number for number in numbers}) for numbers in sets)
    opened = dataset.open_records(output)
    assert [opened.split(split).per_class for split in plan.SPLITS] == [(0, 24, 24), (0, 8, 8), (0, 8, 8)]
    assert manifest(output)['near_duplicates'] == {'groups': 10, 'pictures': 40, 'in_two_classes': 0}
    assert '10 groups of near-duplicates, 40 pictures: each in one split' in capsys.readouterr().out


def test_other_findings_group_nothing_and_change_nothing(pictures, output, tmp_path):
    run(pictures, tmp_path / 'plain')
    path = findings(tmp_path / 'findings.csv', series('cat', *range(7)), 'label_error', 'small_class,cat,,1.0,more\n')
    run(pictures, output, f'--group_near_duplicates={path}')
    assert dataset.open_records(output).fingerprint == dataset.open_records(tmp_path / 'plain').fingerprint
    assert manifest(output)['near_duplicates'] == {'groups': 0, 'pictures': 0, 'in_two_classes': 0}
    assert 'near_duplicates' not in manifest(tmp_path / 'plain')


def test_the_split_does_not_depend_on_the_splits_and_the_order_of_the_findings(tmp_path):
    """Records that were regrouped, checked and built again are the same records."""
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 30, 'dog': 30})
    pairs = series('cat', 1, 2, 3) + series('dog', 4, 5) + series('cat', 7, 8) + series('dog', 9, 12, 14, 15)
    run(pictures, tmp_path / 'a', f'--group_near_duplicates={findings(tmp_path / "a.csv", pairs)}')
    where = {name: split for split in ('train', 'validation') for name in names(tmp_path / 'a', split)}

    def again(name: str) -> str:
        return where[name.partition('/')[2].encode()] + '/' + name.partition('/')[2]

    shuffled = [(again(other), again(one)) for one, other in reversed(pairs)] + [(again('train/cat/3.jpg'), again(
        'train/cat/1.jpg'))]
    (tmp_path / 'b').mkdir()
    path = findings(tmp_path / 'b' / 'findings.csv', shuffled, 'duplicate')
    run(pictures, tmp_path / 'c', f'--group_near_duplicates={path}')
    assert dataset.open_records(tmp_path / 'a').fingerprint == dataset.open_records(tmp_path / 'c').fingerprint


def test_a_group_in_two_classes_trains_and_counts_for_neither_share(tmp_path, output, capsys):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 23, 'dog': 12})
    pairs = [('train/cat/0.jpg', 'validation/dog/0.jpg'), *series('cat', 0, 1, 2), *series('dog', 0, 1)]
    run(pictures, output, f'--group_near_duplicates={findings(tmp_path / "findings.csv", pairs, "contradiction")}')
    group = {b'cat/0.jpg', b'cat/1.jpg', b'cat/2.jpg', b'dog/0.jpg', b'dog/1.jpg'}
    assert group <= names(output, 'train')
    assert dataset.open_records(output).split('validation').per_class == (0, 4, 2)
    assert manifest(output)['near_duplicates'] == {'groups': 1, 'pictures': 5, 'in_two_classes': 1}
    assert '1 group of near-duplicates in two classes: all of them train' in capsys.readouterr().err


def test_copies_join_the_group_of_what_they_are_copies_of(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 30, 'dog': 5})
    for number in range(10):
        (pictures / 'cat' / f'copy{number}.jpg').write_bytes((pictures / 'cat' / f'{number}.jpg').read_bytes())
    (pictures / 'dog' / 'copy.jpg').write_bytes((pictures / 'dog' / '0.jpg').read_bytes())  # No group: copies are one.
    pairs = [(f'train/cat/copy{number}.jpg', f'train/cat/{number + 10}.jpg') for number in range(10)]
    pairs += [('train/dog/0.jpg', 'train/dog/copy.jpg')]
    run(pictures, output, f'--group_near_duplicates={findings(tmp_path / "findings.csv", pairs)}')
    assert not any(torn(output, {b'cat/%d.jpg' % number, b'cat/copy%d.jpg' % number, b'cat/%d.jpg' % (number + 10)})
                   for number in range(10))
    assert manifest(output)['near_duplicates'] == {'groups': 10, 'pictures': 30, 'in_two_classes': 0}


def test_names_as_odd_as_they_come_are_found(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'dog': 5}, first=50)
    odd = [b'a\nb.jpg', b'\xff\\x41.jpg', 'é\u202e\U000e0001,".jpg'.encode(), b'\t\\n\r.jpg']
    toy.class_folders(tmp_path / 'D', {'c,"\\\n': 4})
    folder = pictures / 'c,"\\\n'
    for number, name in enumerate(odd):
        (folder / f'{number}.jpg').rename(folder / name.decode('utf-8', 'surrogateescape'))
    full = [b'train/c,"\\\n/' + name for name in odd]
    path = findings(tmp_path / 'findings.csv', [(full[0], full[1]), (full[2], full[3])])
    run(pictures, output, f'--group_near_duplicates={path}')
    assert manifest(output)['near_duplicates']['pictures'] == 4


def test_pictures_that_went_or_have_a_directory_of_their_own_are_told(pictures, output, tmp_path, capsys):
    toy.class_folders(tmp_path / 'T', {'cat': 3}, first=50)
    pairs = [*series('cat', 0, 1, 2), *series('cat', 2, 99), ('train/cat/3.jpg', 'test/cat/50.jpg'),
             ('test/cat/50.jpg', 'test/cat/51.jpg'), ('validation/dog/1.jpg', 'train/dog/2.jpg')]
    path = findings(tmp_path / 'findings.csv', pairs)
    run(pictures, output, f'--group_near_duplicates={path}', f'--test_directory={tmp_path}/T')
    told = capsys.readouterr().err
    assert f'{path} also names 1 picture not among these, for example cat/99.jpg' in told
    assert '2 pairs cannot be brought to one side' in told
    assert manifest(output)['near_duplicates'] == {'groups': 2, 'pictures': 5, 'in_two_classes': 0}


def test_a_picture_that_cannot_be_used_joins_no_group(pictures, output, tmp_path):
    (pictures / 'cat' / '1.jpg').write_bytes(b'bad')
    path = findings(tmp_path / 'findings.csv', series('cat', 0, 1, 2) + series('dog', 1, 2))
    run(pictures, output, f'--group_near_duplicates={path}')
    assert manifest(output)['near_duplicates'] == {'groups': 1, 'pictures': 2, 'in_two_classes': 0}


@pytest.mark.parametrize(('content', 'expected'), [
    (None, 'No such file or directory; it names the findings.csv that `finetune check` writes'),
    (b'', 'line 1 is damaged, or of another program'), (b'a,b\n1,2\n', 'line 1 is damaged'),
    (b'kind,file,other_file,score,suggestion\nleak,train/cat/0.jpg\n', 'line 2 is damaged'),
    (b'kind,file,other_file,score,suggestion\nleak,train/cat/0.jpg,,1,x\n', 'line 2 is damaged'),
    (b'kind,file,other_file,score,suggestion\nleak,"train/cat', 'is damaged'), (b'\xff\xfe\0', 'is damaged'),
    (b'kind,file,other_file,score,suggestion\nleak,train/x/0.jpg,train/x/1.jpg,1,x\n',
     'is of other pictures: none of those that it names is here, for example x/0.jpg')])
def test_findings_that_cannot_be_used_are_one_sentence_before_any_work(
    pictures, output, tmp_path, content, expected, capsys
):
    path = tmp_path / 'findings.csv'
    if content is not None:
        path.write_bytes(content)
    run(pictures, output, f'--group_near_duplicates={path}', code=1)
    told = capsys.readouterr().err
    assert expected in told and 'Building' not in told and not output.exists()


def test_a_class_that_is_one_group_is_told_why_it_is_not_measured(tmp_path, output, capsys):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 6, 'dog': 6})
    path = findings(tmp_path / 'findings.csv', series('cat', *range(6)))
    run(pictures, output, f'--group_near_duplicates={path}')
    assert ('no picture of cat, which is not measured; it takes a class of 2 different pictures (near-duplicates count '
            'as one). Add some') in capsys.readouterr().err


def test_grouping_where_nothing_is_chosen_by_content_is_a_contradiction(pictures, output, tmp_path, capsys):
    path = findings(tmp_path / 'findings.csv', series('cat', 0, 1))
    run(pictures, output, f'--group_near_duplicates={path}', '--validation_percent=0', code=2)
    assert 'has nothing to do' in capsys.readouterr().err


def test_records_may_be_replaced_by_what_their_own_findings_ask_for(tmp_path, output):
    pictures = toy.class_folders(tmp_path / 'D', {'cat': 20, 'dog': 20})
    run(pictures, output)
    (output / 'check').mkdir()
    path = findings(output / 'check' / 'findings.csv', series('cat', *range(4)))
    run(pictures, output, f'--group_near_duplicates={path}')
    assert manifest(output)['near_duplicates']['pictures'] == 4


def drawn(count: int, sizes: list[int], seed: int) -> tuple[list[int], list[int], dict[int, int]]:
    """Keys of one class, with those that groups of these sizes share, in a random order."""
    rng = random.Random(seed)
    keys = [rng.getrandbits(64) for _ in range(count)]
    members, pairs = iter(range(count)), []
    for size in sizes:
        places = [next(members) for _ in range(size)]
        pairs += itertools.pairwise(places)
    rng.shuffle(pairs)
    return keys, [1] * count, groups.shared_keys(pairs, keys)


@pytest.mark.parametrize(('count', 'sizes', 'expected'), [
    (100, [], (20, 10)), (100, [2] * 30, (20, 10)), (100, [10] * 5, (20, 10)), (100, [30, 25, 12], (20, 10)),
    (2, [2], (0, 0)), (3, [2], (1, 0)), (10, [5, 5], (5, 0)), (12, [4, 4, 4], (4, 4)), (60, [30, 29], (1, 29))])
def test_every_class_gives_its_share_of_pictures_as_near_as_groups_allow(count, sizes, expected):
    """Never the last group: something is left to train on."""
    for seed in range(5):
        keys, labels, shared = drawn(count, sizes, seed)
        splits = plan.by_content(keys, labels, 20, 10, shared)
        assert (splits.count('validation'), splits.count('test')) == expected
        sides = {(shared[key], split) for key, split in zip(keys, splits, strict=True) if key in shared}
        assert len(sides) == len(sizes)


def test_a_group_validates_as_often_as_a_picture():
    """The smallest key of ten is nearly always among the smallest: then films would validate, and nothing else."""
    in_groups = []
    for seed in range(40):
        keys, labels, shared = drawn(400, [4] * 50, seed)
        splits = plan.by_content(keys, labels, 20, 0, shared)
        in_groups.append(sum(key in shared for key, split in zip(keys, splits, strict=True) if split == 'validation'))
    assert 34 < sum(in_groups) / len(in_groups) < 46  # Of 80, half of all pictures being in groups.


def test_a_picture_that_joins_a_group_seldom_moves_the_others():
    rng, moved = random.Random(1), 0
    ten = list(itertools.pairwise(range(10)))
    for _ in range(1000):
        keys = [rng.getrandbits(64) for _ in range(11)]
        moved += groups.shared_keys(ten, keys)[keys[0]] != groups.shared_keys([*ten, (9, 10)], keys)[keys[0]]
    assert 50 < moved < 140  # Of 1000, one in eleven.


# ---- how much of it, in how many files ----


def planned(monkeypatch, pictures: int, size: int = 0, **typed) -> plan.Plan:
    """What is planned for a source of so many pictures and bytes."""
    source = SimpleNamespace(per_label=[0, pictures], stored_bytes=lambda: size)
    monkeypatch.setitem(plan.SOURCES, 'folders', lambda options: (('background', 'cat'), {'train': source}))
    told = SimpleNamespace(group_near_duplicates=None, num_threads=1, seed=1, source='folders', validation_percent=None,
                           test_percent=0, **dict.fromkeys(plan.STORED_BY), **dict.fromkeys(SHARDS))
    return plan.make(SimpleNamespace(**vars(told) | typed))


SHARDS = ('train_shards', 'validation_shards', 'test_shards')
GB = 10**9


@pytest.mark.parametrize(('pictures', 'size', 'train', 'validation'), [
    (12, 1, 2, 2), (1250, GB // 10, 2, 2), (1300, GB // 10, 8, 2), (3670, GB // 5, 8, 2), (100_000, GB, 8, 8),
    (1_000_000, GB, 95, 8), (100_000, 100 * GB, 313, 79)])
def test_there_are_as_many_shards_as_pictures_and_bytes_need(monkeypatch, pictures, size, train, validation):
    """Two files for a million pictures are read by two threads, and kept or copied whole or not at all."""
    assert planned(monkeypatch, pictures, size).shards == {'train': train, 'validation': validation}


def test_who_says_how_many_shards_gets_them(monkeypatch):
    assert planned(monkeypatch, 100_000, train_shards=3).shards == {'train': 3, 'validation': 8}


@pytest.mark.parametrize(('pictures', 'percent'), [(300, 20), (250_000, 20), (1_000_000, 5), (10_000_000, 0.5)])
def test_of_very_many_pictures_no_more_validate_than_tell_anything(monkeypatch, pictures, percent):
    assert planned(monkeypatch, pictures).percents == {'validation': pytest.approx(percent)}
    assert planned(monkeypatch, pictures, validation_percent=30).percents == {'validation': 30}
