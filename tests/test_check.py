"""`finetune check` from the command line: what it writes, what it says, and that it changes nothing."""

import csv
import io
import json
import os
import re

import pytest

from finetune import build, check, train
from finetune.models import zoo
from finetune.records import dataset, examples
from tests import toy, toy_net, toy_records, toy_run
from tests.checking.albums import photo, saved
from tools.torture import names as hostile


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    """A run of the toy network, as first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE, auxiliary='first_bn'))
        run = toy_run.start_run(tmp_path_factory.mktemp('backbone') / 'run')
        toy_run.save_checkpoint(run, step=1)
    return run.directory


@pytest.fixture
def data(tmp_path):
    """Pictures of two classes; one stands in both, one in both splits, one twice in a class."""
    pictures = {'train': [(f'{label}/{number}.jpg', label, saved(photo(100 * label + number)))
                          for label in (1, 2) for number in range(12)],
                'validation': [(f'{label}/v{number}.jpg', label, saved(photo(900 + 100 * label + number)))
                               for label in (1, 2) for number in range(4)]}
    pictures['train'] += [('1/twice.jpg', 1, pictures['train'][0][2]), ('2/wrong.jpg', 2, pictures['train'][1][2])]
    pictures['validation'] += [('1/leaked.jpg', 1, pictures['train'][2][2])]
    return write(tmp_path / 'records', ('background', 'rose', 'tulip'), pictures)


def write(directory, labels, pictures):
    directory.mkdir()
    splits = []
    for split, listed in pictures.items():
        writer = dataset.ShardWriter(directory / dataset.shard_name(split, 0, 1))
        for name, label, encoded in listed:
            writer.write(examples.encode_example(
                encoded, 'JPEG', 120, 160, label, labels[label], os.fsencode(name)))
        counts = tuple(sum(label == number for _, label, _ in listed) for number in range(len(labels)))
        splits.append(dataset.Split(split, len(listed), counts, (writer.close(),)))
    (directory / dataset.MANIFEST).write_text(json.dumps(dataset.manifest(labels, splits, 'JPEG', {})))
    return directory


def run_check(data, backbone, *flags):
    return check.main([str(data), f'--pretrained={backbone}', '--engine=tensorflow', *flags])


def rows_of(data):
    return list(csv.DictReader(io.StringIO((data / 'check/findings.csv').read_text(), newline='')))


def test_every_pair_is_a_row_that_says_what_it_harms(data, backbone, capsys):
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    assert run_check(data, backbone) == 0
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before
    pairs = [(row['kind'], row['file'], row['other_file']) for row in rows_of(data) if row['score'] == '1.0000']
    assert pairs == [('leak', 'train/1/2.jpg', 'validation/1/leaked.jpg'),
                     ('contradiction', 'train/1/1.jpg', 'train/2/wrong.jpg'),
                     ('duplicate', 'train/1/0.jpg', 'train/1/twice.jpg')]
    told = capsys.readouterr()
    assert 'leak: 1 finding' in told.out and 'train/1/2.jpg = validation/1/leaked.jpg' in told.out
    assert 'findings.csv' in told.err
    content = json.loads((data / 'check/findings.json').read_text())
    assert content['figures']['duplicates'] >= 3 and content['figures']['leaks'] == 1


def test_a_count_that_is_not_kept_to_ends_with_3_after_everything_was_written(data, backbone, capsys):
    assert run_check(data, backbone, '--require=contradictions<=1,leaks=0', '--json') == 3
    assert 'error: --require is not met: leaks=0, but it is 1.' in capsys.readouterr().err
    content = json.loads((data / 'check/findings.json').read_text())
    assert content['requirements'] == {'contradictions<=1': True, 'leaks=0': False} and rows_of(data)


@pytest.mark.slow
def test_what_check_finds_in_two_splits_is_in_one_after_the_next_build_and_stays_there(tmp_path, backbone):
    pictures = tmp_path / 'pictures'
    for label in 'ab':
        (pictures / label).mkdir(parents=True)
        for number in range(15):
            image = photo(number + 100 * (label == 'b'))
            (pictures / label / f'{number}.jpg').write_bytes(saved(image))
            (pictures / label / f'again{number}.jpg').write_bytes(toy.encoded(image, quality=55))
    records, found = tmp_path / 'records', tmp_path / 'records/check/findings.csv'
    flags = [f'--train_directory={pictures}', f'--output_directory={records}', '--num_threads=1']
    assert build.main(flags) == 0 and run_check(records, backbone) == 0
    assert any(row['kind'] == 'leak' for row in rows_of(records))
    fingerprints = []
    for _ in range(2):
        assert build.main([*flags, f'--group_near_duplicates={found}']) == 0 and run_check(records, backbone) == 0
        assert not any(row['kind'] == 'leak' for row in rows_of(records))
        assert dataset.open_records(records).split('validation').per_class == (0, 6, 6)
        fingerprints.append(dataset.open_records(records).fingerprint)
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.slow
def test_the_head_finds_the_features_that_the_check_computed(data, backbone, capsys):
    assert run_check(data, backbone) == 0
    flags = f'--data_dir={data}', f'--train_dir={data.parent / "run"}', f'--pretrained={backbone}'
    assert train.main([*flags, '--fine_tune', '--freeze_backbone', '--engine=tensorflow']) == 0
    told = capsys.readouterr().err
    assert told.count('Computing features of') == 2 == told.count('Using features computed before')


def test_a_test_split_is_looked_at_for_copies_alone(data, backbone, tmp_path):
    blank = toy.encoded(toy.picture(0, (160, 120)).point(lambda value: 0), quality=90)
    first = saved(photo(1))
    pictures = {'train': [(f'{label}/{number}.jpg', label, saved(photo(100 * label + number)))
                          for label in (1, 2) for number in range(6)] + [('1/first.jpg', 1, first)],
                'test': [('1/copy.jpg', 1, first), ('1/blank.jpg', 1, blank)]}
    records = write(tmp_path / 'with_test', ('background', 'rose', 'tulip'), pictures)
    assert run_check(records, backbone) == 0
    about_test = [row for row in rows_of(records) if 'test/' in row['file'] + row['other_file']]
    assert [row['kind'] for row in about_test] == ['leak']


def test_hostile_names_break_neither_a_line_nor_a_cell(tmp_path, backbone, capsys):
    labels = ('background', *(f'class {number} {os.fsdecode(name)!a}' for number, name in enumerate(hostile.NAMES)))
    picture = saved(photo(1, (48, 40)))
    pictures = {'train': [(os.fsdecode(name + b'/' + name), number + 1, picture)
                          for number, name in enumerate(hostile.NAMES)]}
    records = write(tmp_path / 'records', labels, pictures)
    assert run_check(records, backbone) == 0
    text = (records / 'check/findings.csv').read_text()
    rows = rows_of(records)
    assert len(rows) == text.count('\n') - 1 > len(hostile.NAMES)
    assert not any(hostile._lines_whole('findings.csv', text))
    told = capsys.readouterr()
    assert not any(hostile._lines_whole('screen', told.out + told.err))
    json.loads((records / 'check/findings.json').read_text())


@pytest.mark.parametrize(('flags', 'sentence'), [
    ([], 'takes one folder of pictures, or of the records'),
    (['a', 'b'], '2 were given'),
    (['{data}', '--require=duplicates'], r'expected NAME>=NUMBER \(or <= > < =\)'),
    (['{data}', '--require=precision@1>=0.9'], 'NAME is one of duplicates, leaks'),
])
def test_what_cannot_be_done_is_said_in_one_sentence(flags, sentence, tmp_path, capsys):
    data = toy_records.write(tmp_path / 'records')
    assert check.main([flag.format(data=data) for flag in flags]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_folder_of_photos_is_checked_in_the_project_that_goes_on_from_there(tmp_path, backbone, capsys):
    photos = toy.class_folders(tmp_path / 'photos', {'cat': 12, 'dog': 12})
    toy.class_folders(photos, {'dog': 0, 'cat': 1}, first=50)
    (photos / 'dog/copy.jpg').write_bytes((photos / 'cat/0.jpg').read_bytes())
    before = {path: path.read_bytes() for path in photos.rglob('*.jpg')}
    project = tmp_path / 'project'
    assert run_check(photos, backbone, f'--output={project}') == 0
    assert 'contradiction' in (project / 'check/findings.csv').read_text()
    assert {path: path.read_bytes() for path in photos.rglob('*.jpg')} == before
    capsys.readouterr()
    assert run_check(photos, backbone, f'--output={project}') == 0
    assert 'As before' in capsys.readouterr().err


def test_records_of_one_class_or_one_picture_are_checked_too(tmp_path, backbone):
    one = [('1/a.jpg', 1, saved(photo(1)))]
    assert run_check(write(tmp_path / 'one', ('background', 'rose'), {'train': one}), backbone) == 0
    some = [(f'1/{number}.jpg', 1, saved(photo(number))) for number in range(15)]
    assert run_check(write(tmp_path / 'class', ('background', 'rose'), {'train': some}), backbone) == 0
