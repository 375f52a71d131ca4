"""A list of files and their labels, as people and programs write it: what becomes of each line."""

from pathlib import Path

import pytest

from finetune import build
from finetune.building.sources import labels_csv
from finetune.console import errors
from finetune.records import dataset
from tests import toy
from tests.toy_build import manifest, read, run


@pytest.fixture
def photos(tmp_path) -> Path:
    """20 pictures that lie side by side, two of them in a folder of their own, one without a suffix."""
    toy.class_folders(tmp_path, {'P': 20, 'P/more': 2})
    (tmp_path / 'P' / '19.jpg').rename(tmp_path / 'P' / '19')
    return tmp_path / 'P'


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / 'records'


def listed(photos: Path, lines: list[str], header: str = 'file,label', name: str = 'labels.csv') -> Path:
    path = photos.parent / name
    path.write_text('\n'.join([header, *lines, '']))
    return path


def told(path: Path) -> str:
    with pytest.raises(errors.Error) as caught:
        labels_csv.read(path)
    return str(caught.value)


def labels(output: Path, split: str = 'train') -> dict[str, str]:
    return {record['filename'].decode(): record['text'] for record in read(output, split)}


GOOD = [f'{number}.jpg,{"cat" if number % 2 else "dog"}' for number in range(10)]


def test_each_file_of_the_list_becomes_a_record_of_its_label(photos, output):
    path = listed(photos, [*GOOD, 'more/0.jpg,background', '19,cat', '"more/1.jpg"," my cat, too"'])
    run(photos, output, f'--labels_csv={path}', '--validation_percent=0')
    stored = labels(output)
    assert dataset.open_records(output).labels == ('background', 'cat', 'dog', 'my cat, too')
    assert stored == {f'{label}/{file}': label for file, label in (line.split(',') for line in GOOD)} | {
        'background/more/0.jpg': 'background', 'cat/19': 'cat', 'my cat, too/more/1.jpg': 'my cat, too'}
    assert manifest(output)['sources'] == {'train': str(path)} and not manifest(output)['notes']


def test_the_order_of_the_lines_decides_nothing(photos, tmp_path):
    run(photos, tmp_path / 'a', f'--labels_csv={listed(photos, GOOD)}')
    run(photos, tmp_path / 'b', f'--labels_csv={listed(photos, [*reversed(GOOD), GOOD[3]])}')
    records = [dataset.open_records(tmp_path / name) for name in 'ab']
    assert records[0].fingerprint == records[1].fingerprint
    assert labels(tmp_path / 'a', 'validation')


def test_a_column_says_which_pictures_measure(photos, output, capsys):
    lines = [f'{line},{split}' for line, split in zip(GOOD, ['Train', '', 'val', 'test', 'dev', 'train'] + 4 * [''],
                                                      strict=True)]
    path = listed(photos, lines, 'file,label,split')
    run(photos, output, f'--labels_csv={path}')
    assert set(labels(output, 'validation')) == {'dog/2.jpg', 'dog/4.jpg'}
    assert set(labels(output, 'test')) == {'cat/3.jpg'} and len(labels(output)) == 7
    run(photos, output, f'--labels_csv={path}', '--validation_percent=10', code=2)
    assert 'says which pictures are for validation: leave --validation_percent out' in capsys.readouterr().err


@pytest.mark.parametrize('encode', [
    lambda text: b'\xef\xbb\xbf' + text.encode(), lambda text: text.replace('\n', '\r\n').encode(),
    lambda text: text.replace('file,label', ' Label , FILE,source').replace('0.jpg,dog', 'dog,0.jpg,me').encode(),
    lambda text: text.encode() + b'\n , \n\n'])
def test_tables_of_every_program_are_read(photos, encode):
    path = photos.parent / 'labels.csv'
    path.write_bytes(encode('file,label\n0.jpg,dog\n'))
    row, = labels_csv.read(path)
    assert (row.file, row.label, row.split) == (b'0.jpg', 'dog', 'train')


@pytest.mark.parametrize(('content', 'expected'), [
    ('file,label\n0.jpg,cat\n'.encode('utf-16'), 'is in UTF-16; save it as UTF-8'),
    (b'file,label\n0.jpg,caf\xe9\n', 'line 2 is not UTF-8'),
    (b'id,breed\n0.jpg,cat\n', 'here it is id, breed, and file, label is not in it once'),
    (b'file;label\n0.jpg;cat\n', 'with a comma between them, and perhaps split; here it is file;label'),
    (b'file,label,label\n', 'label is not in it once'), (b'', 'here it is nothing'), (b'\0\0', 'here it is'),
    (b'file,label\n', 'lists no file'),
    (b'file,label\n0.jpg,cat\na,b.jpg,cat\n', 'line 3 has 3 cells, the first line 2. A name with a comma'),
    (b'file,label\n0.jpg\n', 'line 2 has 1 cell,'), (b'file,label\n,cat\n', 'line 2 names no file'),
    (b'file,label\n0.jpg,a/b\n', 'line 2: the label (a/b) cannot be a class'),
    (b'file,label\n0.jpg,..\n', 'cannot be a class'), (b'file,label\n0.jpg,"a\nb"\n', 'cannot be a class'),
    (b'file,label,split\n0.jpg,cat,fold1\n', 'line 2: the split is fold1, expected train, validation, test'),
    (b'file,label\n"0.jpg,cat\n', 'Mend the line'), (b'file,label\n' + b'a' * 200_000, 'Mend the line')])
def test_a_table_that_cannot_be_understood_is_told_with_its_line(tmp_path, content, expected):
    (tmp_path / 'labels.csv').write_bytes(content)
    assert expected in told(tmp_path / 'labels.csv')


def test_a_list_that_is_not_there_is_told(tmp_path):
    assert '--labels_csv names a CSV file' in told(tmp_path / 'labels.csv')


def test_what_cannot_be_used_is_listed_with_its_reason_and_ends_nothing(photos, output):
    (photos / 'note.txt').write_text('no picture')
    (photos / 'thumb.dng').write_bytes(b'II*\0' + bytes(90))
    (photos / '18.jpg').unlink()
    (photos / '18.jpg').symlink_to('nowhere')
    path = listed(photos, [*GOOD, '90.jpg,cat', '12.jpg,', '13.jpg,cat', '13.jpg,dog', './1.jpg,dog', 'note.txt,cat',
                           'thumb.dng,cat', 'more,cat', '18.jpg,cat', '0.jpg/x.jpg,cat', f'{300 * "x"},cat'])
    run(photos, output, f'--labels_csv={path}')
    lines = (output / 'skipped.csv').read_text().splitlines()[1:]
    reasons = dict(line.removeprefix(f'{photos}/').split(',')[:2] for line in lines)
    assert reasons == {
        '90.jpg': 'not_found', '12.jpg': 'no_label', '13.jpg': 'contradiction', '1.jpg': 'contradiction',
        'note.txt': 'not_an_image', 'thumb.dng': 'unsupported_format', 'more': 'not_a_regular_file',
        '18.jpg': 'symlink_dangling', '0.jpg/x.jpg': 'not_found', 300 * 'x': 'not_found'}
    assert 'line 14 of the list says cat, line 15 says dog' in (output / 'skipped.csv').read_text()
    assert manifest(output)['found'] == 10 + 9


def test_the_same_file_for_two_splits_is_a_contradiction_too(photos, output):
    path = listed(photos, [*(f'{line},' for line in GOOD), '0.jpg,dog,test', '2.jpg,dog,test'], 'file,label,split')
    run(photos, output, f'--labels_csv={path}', code=0)
    assert 'line 2 of the list says train, line 12 says test' in (output / 'skipped.csv').read_text()


@pytest.mark.parametrize('written', ['relative', 'absolute', 'above'])
def test_files_may_lie_anywhere_and_their_names_in_records_lead_nowhere(photos, output, tmp_path, written):
    """Lists are made with absolute paths by many programs; a record's name is below its class all the same."""
    (tmp_path / 'empty').mkdir()
    prefix, directory, name = {
        'relative': ('P/', tmp_path / 'empty', 'cat/P/1.jpg'), 'above': ('../P/', photos, 'cat/P/1.jpg'),
        'absolute': (f'{photos}/', photos, f'cat{photos}/1.jpg')}[written]
    run(directory, output, f'--labels_csv={listed(photos, [prefix + line for line in GOOD])}')
    assert name in {*labels(output), *labels(output, 'validation')}


def test_a_list_of_other_files_is_told_with_where_they_were_looked_for(photos, output, capsys):
    run(photos, output, f'--labels_csv={listed(photos, ["x/1.jpg,cat", "x/2.jpg,dog"])}', code=1)
    told = capsys.readouterr().err
    assert f'for example x/1.jpg, which is looked for in {photos}, {photos.parent}.' in told


def test_the_labels_file_chooses_and_numbers_the_classes(photos, output, tmp_path, capsys):
    (tmp_path / 'labels.txt').write_text('emu\ndog\n')
    run(photos, output, f'--labels_csv={listed(photos, GOOD)}', f'--labels_file={tmp_path}/labels.txt')
    assert dataset.open_records(output).labels == ('background', 'emu', 'dog')
    told = capsys.readouterr().err
    assert 'cat not in the labels file: 5 pictures are left out' in told and 'no picture of emu for train' in told


@pytest.mark.parametrize(('lines', 'expected'), [
    (['0.jpg,cat,test', '1.jpg,dog,'], 'cat has pictures for test and none to train on'),
    (['0.jpg,cat,test'], 'lists no picture of a class to train on'),
    (['0.jpg,background,'], 'lists no picture of a class to train on'),
    (['0.jpg,,'], '0.jpg: line 2 of the list gives it no label')])
def test_a_list_that_nothing_can_be_learned_from_is_told(photos, output, lines, expected, capsys):
    run(photos, output, f'--labels_csv={listed(photos, lines, "file,label,split")}', code=1)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize('flag', ['--recursive', '--validation_directory=V', '--test_directory=V'])
def test_what_a_list_says_itself_is_not_said_again(photos, output, flag, capsys):
    run(photos, output, f'--labels_csv={listed(photos, GOOD)}', flag, code=2)
    assert 'has nothing to do with --labels_csv' in capsys.readouterr().err


def test_a_list_is_of_files_alone(photos, output, capsys):
    flags = [f'--train_directory={photos}', f'--output_directory={output}', f'--labels_csv={listed(photos, GOOD)}']
    assert build.main([*flags, '--source=mnist_csv']) == 2
    assert '--labels_csv has nothing to do with --source=mnist_csv' in capsys.readouterr().err


def test_records_do_not_replace_the_list(photos, tmp_path, capsys):
    (tmp_path / 'R').mkdir()
    path = listed(photos, GOOD).rename(tmp_path / 'R' / 'labels.csv')
    run(photos, tmp_path / 'R', f'--labels_csv={path}', '--overwrite', code=2)
    assert 'lie one in the other' in capsys.readouterr().err and path.exists()


def test_links_are_refused_when_asked_and_room_is_known_beforehand(photos, output):
    (photos / '0.jpg').rename(photos / 'real.jpg')
    (photos / '0.jpg').symlink_to('real.jpg')
    path = listed(photos, GOOD)
    run(photos, output, f'--labels_csv={path}')
    assert manifest(output)['notes'] == {'symlink': 1}
    run(photos, output, f'--labels_csv={path}', '--no_symlinks')
    assert manifest(output)['skipped'] == {'symlink': 1}
