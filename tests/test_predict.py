"""`finetune predict`, with a network that knows nothing, on tiny pictures of all kinds."""

import csv
import io
import json
import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune import build, predict
from finetune.building.sources import folders, pixels
from finetune.evaluation import inference, metrics
from finetune.models import engines
from finetune.pictures import gate
from finetune.predicting import answering, asked, pipeline
from finetune.records import batches, dataset, examples
from finetune.runs import trust
from tests import toy, toy_run


@pytest.fixture
def run(tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=3)
    return run


@pytest.fixture
def photos(tmp_path):
    """Three good pictures and, between them in the order of names, two that are none."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for name, seed in (('a.jpg', 1), ('c.jpg', 2), ('e.jpg', 3)):
        (folder / name).write_bytes(toy_run.picture(seed))
    (folder / 'b.jpg').write_bytes(toy_run.picture(1)[:-100])
    (folder / 'd.png').write_bytes(b'<!DOCTYPE html>')
    return folder


def answer(run, *arguments: str) -> int:
    return predict.main([f'--checkpoint_dir={run.directory}', *map(str, arguments)])


def json_lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def encoded(format: str, seed: int, **options) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (31, 45, 4), np.uint8)
    mode = {'PNG': 'RGBA', 'GIF': 'P', 'BMP': 'L'}.get(format, 'RGB')
    Image.fromarray(pixels).convert(mode).save(data, format, **options)
    return data.getvalue()


# The same pictures, the same probabilities -------------------------------------------------------------------


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded('JPEG', 5, exif=exif)


KINDS = {
    'plain.jpg': encoded('JPEG', 1), 'progressive.jpg': encoded('JPEG', 2, progressive=True), 'turned.jpg': turned(),
    'transparent.png': encoded('PNG', 3), 'grey.bmp': encoded('BMP', 4), 'web.webp': encoded('WEBP', 6),
    'wrong_name.jpg': encoded('GIF', 7),
}


def test_a_picture_gets_the_probabilities_that_it_gets_in_eval(run, tmp_path, capsys):
    stored = {name: gate.admit(data) for name, data in KINDS.items()}
    expected = probabilities_in_eval(run, tmp_path / 'data', 'JPEG', stored)
    assert_same_in_predict(run, tmp_path / 'photos', KINDS, expected, capsys)


def test_a_small_picture_is_not_blurred_for_a_network_that_learned_from_lossless_ones(tmp_path, capsys):
    run = toy_run.start_run(tmp_path / 'run', treatment={'format': 'PNG'})
    toy_run.save_checkpoint(run, step=3)
    noise = [np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8) for seed in range(2)]
    small = {'colours.png': Image.fromarray(noise[0]), 'grey.png': Image.fromarray(noise[1][..., 0] // 4)}
    stored = {name: pixels.stored(image) for name, image in small.items()}
    expected = probabilities_in_eval(run, tmp_path / 'data', 'PNG', stored)
    files = {name: toy.encoded(image, 'PNG', optimize=True) for name, image in small.items()}
    assert_same_in_predict(run, tmp_path / 'photos', files, expected, capsys)


def test_a_large_picture_is_shrunk_as_it_was_in_the_records_that_the_network_learned_from(tmp_path, capsys):
    run = toy_run.start_run(tmp_path / 'run', treatment={'short_side': 40})
    toy_run.save_checkpoint(run, step=3)
    noise = np.random.default_rng(0).integers(0, 256, (2, 200, 300, 3), np.uint8)
    noise[1] //= 4
    files = {f'{number}.jpg': toy.encoded(Image.fromarray(pixels), 'JPEG') for number, pixels in enumerate(noise)}
    stored = {name: gate.admit(data, short_side=40) for name, data in files.items()}
    expected = probabilities_in_eval(run, tmp_path / 'data', 'JPEG', stored)
    assert_same_in_predict(run, tmp_path / 'photos', files, expected, capsys)


def test_values_of_12_bits_are_as_bright_as_in_the_records_that_the_network_learned_from(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label in ('cat', 'dog'):
        (tmp_path / 'photos' / label).mkdir(parents=True)
        for number in range(2):
            values = rng.integers(0, 4096 >> 2 * number, (24, 32), np.uint16)
            Image.fromarray(values).save(tmp_path / 'photos' / label / f'{number}.png')
    assert build.main([f'--train_directory={tmp_path}/photos', f'--output_directory={tmp_path}/records',
                       '--num_threads=1', '--validation_percent=0', '--sixteen_bit_max=4095']) == 0
    treatment = dataset.open_records(tmp_path / 'records').treatment
    files = {path.name: path.read_bytes() for path in (tmp_path / 'photos' / 'cat').iterdir()}
    run = toy_run.start_run(tmp_path / 'run', treatment=treatment)
    toy_run.save_checkpoint(run, step=3)
    stored = {name: gate.admit(data, sixteen_bit_max=4095) for name, data in files.items()}
    expected = probabilities_in_eval(run, tmp_path / 'data', 'JPEG', stored)
    capsys.readouterr()
    assert_same_in_predict(run, tmp_path / 'again', files, expected, capsys)


def test_what_is_let_in_is_what_the_build_let_in(tmp_path, capsys):
    pictures = toy.class_folders(tmp_path / 'photos', {'cat': 3, 'dog': 3})
    (pictures / 'cat' / 'large.jpg').write_bytes(toy.encoded(toy.picture(1, (64, 48))))
    (pictures / 'cat' / 'long.jpg').write_bytes(toy.encoded(toy.picture(2)) + bytes(5000))
    assert build.main([f'--train_directory={pictures}', f'--output_directory={tmp_path}/records', '--num_threads=1',
                       '--max_pixels=1000', '--max_bytes=4999']) == 0
    told = json.loads((tmp_path / 'records' / 'dataset.json').read_text())
    treatment = dataset.open_records(tmp_path / 'records').treatment
    run = toy_run.start_run(tmp_path / 'run', treatment=treatment)
    toy_run.save_checkpoint(run, step=3)
    capsys.readouterr()
    assert answer(run, pictures, '--jsonl') == 1
    lines = json_lines(capsys)
    rejected = {Path(line['file']).name: line['error'] for line in lines if 'error' in line}
    assert rejected == {'large.jpg': 'too_many_pixels', 'long.jpg': 'file_too_big'}
    assert told['written'] == len(lines) - len(rejected)
    assert not any('--' in line.get('detail', '') for line in lines), 'a flag that predict does not have'


@pytest.mark.parametrize('treatment', [
    {'rotate': 90}, {'format': 'TIFF'}, {'format': ['PNG']}, {'short_side': '40'}, {'max_side': -1}, {'max_side': True},
    {'max_pixels': 0}, {'max_bytes': 10**400}, {'max_pixels': None}, ['format']])
def test_a_run_whose_treatment_makes_no_sense_is_refused_by_name(run, photos, capsys, treatment):
    path = run.directory / 'recipe.json'
    facts = json.loads(path.read_text())
    facts['records']['treatment'] = treatment
    path.write_text(json.dumps(facts))
    assert answer(run, photos) == 1
    err = capsys.readouterr().err
    assert 'recipe.json' in err and 'treatment' in err and 'should not happen' not in err


def test_a_name_too_long_for_the_system_ends_no_other_answer(run, tmp_path, capsys):
    (tmp_path / 'good.jpg').write_bytes(KINDS['plain.jpg'])
    assert answer(run, f'{tmp_path}/{"x" * 300}.jpg', tmp_path / 'good.jpg', '--jsonl') == 1
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert bad['error'] == 'unreadable' and good['answers']


def probabilities_in_eval(run, directory: Path, format: str, stored: dict) -> dict[bytes, np.ndarray]:
    """By name, of records that hold these pictures."""
    directory.mkdir()
    writer = dataset.ShardWriter(directory / 'validation-00000-of-00001')
    for name, picture in stored.items():
        writer.write(examples.encode_example(
            picture.encoded, format, picture.height, picture.width, 1, 'blue', name.encode()))
    split = dataset.Split('validation', len(stored), (0, len(stored), 0, 0), (writer.close(),))
    manifest = dataset.manifest(toy_run.LABELS, [split], format, {})
    (directory / dataset.MANIFEST).write_text(json.dumps(manifest))
    pictures = batches.for_evaluation(dataset.open_records(directory), 'validation', 32, 0.875, 3)
    evaluated = inference.outputs(engines.function(run.load().model), pictures)
    return dict(zip(evaluated.filenames, metrics.probabilities(evaluated.logits), strict=True))


def assert_same_in_predict(run, folder: Path, files: dict[str, bytes], expected: dict, capsys) -> None:
    spread = np.ptp(list(expected.values()), axis=0).max()
    assert spread > 0.01, 'the network says the same of every picture, so that nothing is tested'
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert answer(run, folder, '--jsonl', '--batch_size=2') == 0
    predicted = json_lines(capsys)
    assert len(predicted) == len(files)
    for line in predicted:
        of_eval = expected[Path(line['file']).name.encode()]
        for given in line['answers']:
            assert given['probability'] == pytest.approx(of_eval[toy_run.LABELS.index(given['label'])], abs=1e-5)


def test_the_answers_are_the_most_probable_labels_in_their_order(run, photos, capsys):
    answer(run, photos / 'a.jpg', '--jsonl', '--top_k=2')
    answers, = (line['answers'] for line in json_lines(capsys))
    assert len(answers) == 2 and answers[0]['probability'] >= answers[1]['probability']


def test_more_labels_than_there_are_is_all_of_them(run, photos, capsys):
    answer(run, photos / 'a.jpg', '--jsonl', '--top_k=50')
    assert {given['label'] for given in json_lines(capsys)[0]['answers']} == {'blue', 'green', 'red'}


def test_a_background_that_was_never_seen_is_no_answer_but_one_that_was_is():
    logits = np.array([[9, 1, 2, 3]], np.float32)
    unseen, seen = ({n: toy_run.LABELS[n] for n in numbers} for numbers in ((1, 2, 3), (0, 1, 2, 3)))
    best = answering.top(logits, unseen, 1)[0][0]
    assert best == ('red', pytest.approx(metrics.probabilities(logits)[0, 3]))
    assert answering.top(logits, seen, 1)[0][0][0] == 'background'


def test_an_unused_background_is_no_answer_and_every_class_is_one(tmp_path):
    run = toy_run.start_run(tmp_path / 'gap', per_class=(4, 9, 0, 9))
    assert run.answerable == {0: 'background', 1: 'blue', 2: 'green', 3: 'red'}


# Bad files, names, places -------------------------------------------------------------------------------------


def test_a_bad_file_is_a_line_with_its_reason_and_the_others_are_answered(run, photos, capsys):
    assert answer(run, photos, '--jsonl') == 1
    lines = json_lines(capsys)
    assert [Path(line['file']).name for line in lines] == ['a.jpg', 'b.jpg', 'c.jpg', 'd.png', 'e.jpg']
    assert [line.get('error') for line in lines] == [None, 'truncated', None, 'not_an_image', None]


def test_one_picture_is_counted_as_one(run, photos, capsys):
    answer(run, photos / 'a.jpg')
    assert '\n1 picture in ' in capsys.readouterr().err


def test_the_table_and_the_csv_say_the_reason_too(run, photos, capsys):
    assert answer(run, photos) == 1
    out = capsys.readouterr()
    assert f'{photos}/d.png: no answer: not_an_image: an HTML page' in out.out.splitlines()
    assert 'without answer: 2' in out.err
    assert answer(run, photos, '--csv') == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [bool(row['error']) for row in rows] == [False, True, False, True, False]
    assert rows[0]['label_1'] and 0 <= float(rows[0]['probability_1']) <= 1 and not rows[1]['label_1']


def test_a_file_that_is_not_there_is_one_of_the_bad_ones(run, photos, capsys):
    assert answer(run, 'nowhere.jpg', photos / 'a.jpg', '--jsonl') == 1
    assert [line.get('error') for line in json_lines(capsys)] == ['not_found', None]


@pytest.mark.parametrize(('named', 'said'), [
    ('nowhere.jpg', 'no such file'), ('a.jpg/x.jpg', 'no such file'), ('~nobody_at_all/x.jpg', 'no such file'),
    ('https://example.org/x.jpg', 'download it first'), ('s3://bucket/x.jpg', 'download it first')])
def test_a_path_that_never_was_did_not_vanish(photos, monkeypatch, named, said):
    monkeypatch.chdir(photos)
    (_, rejected), = asked.find_pictures([named])
    assert rejected.reason == 'not_found' and said in rejected.detail


def test_a_tilde_is_the_home_directory_unless_something_is_called_so(photos, monkeypatch):
    """In a list on stdin no shell expands it."""
    monkeypatch.setenv('HOME', str(photos))
    monkeypatch.chdir(photos)
    assert list(asked.find_pictures(['~/a.jpg'])) == [(f'{photos}/a.jpg', None)]
    (photos / '~').mkdir()
    (photos / '~' / 'a.jpg').touch()
    assert list(asked.find_pictures(['~/a.jpg'])) == [('~/a.jpg', None)]


def test_a_picture_above_a_limit_is_answered_with_a_way_out(tmp_path):
    (tmp_path / 'large.jpg').write_bytes(toy.encoded(toy.picture(1, (64, 48))))
    for limits, reason in (({'max_pixels': 1000}, 'too_many_pixels'), ({'max_bytes': 99}, 'file_too_big')):
        rejected = pipeline.admit(str(tmp_path / 'large.jpg'), limits)
        assert rejected.reason == reason and rejected.detail.endswith(' first')


def test_columns_are_straight_whatever_the_labels(run, photos, capsys):
    answer(run, photos / 'a.jpg', photos / 'c.jpg', photos / 'e.jpg')
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index(str(photos)) for line in lines}) == 1


def test_folders_are_walked_in_order_without_hidden_files_and_without_other_files(tmp_path):
    for name in ('b/2.JPG', 'b/10.jpg', 'a.png', '.hidden.jpg', '.git/x.jpg', '__MACOSX/x.jpg', 'notes.txt', 'c.heic'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    found = [str(Path(path).relative_to(tmp_path)) for path, _ in asked.find_pictures([str(tmp_path)])]
    assert found == ['a.png', 'b/10.jpg', 'b/2.JPG', 'c.heic']


def test_linked_folders_are_read_as_a_build_reads_them(tmp_path):
    """Photos of several disks, linked into one folder, got no answer and no word."""
    toy.class_folders(tmp_path, {'photos/cat': 2, 'disk/tulips': 2, 'disk/tulips/old': 1})
    photos = tmp_path / 'photos'
    for name, target in {'tulips': '../disk/tulips', 'up': '..', 'cat/self': 'self', 'roses': '/mnt/not_there'}.items():
        (photos / name).symlink_to(target)
    (photos / 'cat' / 'raw.dng').write_bytes(b'II*\0')
    named = list(asked.find_pictures([str(photos)]))
    listing = folders.list_pictures(photos, 'train_directory', recursive=True)
    built = {b'%s/%s' % (folder, name) for folder, names in listing.pictures.items() for name in names}
    assert {os.path.relpath(path, photos).encode() for path, rejected in named if not rejected} == built
    assert b'tulips/old/0.jpg' in built and len(built) == 5
    assert ({(os.fsencode(path), rejected.reason) for path, rejected in named if rejected}
            == {(skip.path, skip.reason) for skip in listing.skipped})
    assert {rejected.reason for _, rejected in named if rejected} == {
        'symlink_loop', 'symlink_dangling', 'unsupported_format'}


def test_what_is_passed_over_in_a_folder_is_told(run, photos, tmp_path, capsys):
    for folder in (photos, tmp_path / 'empty'):
        folder.mkdir(exist_ok=True)
        (folder / 'x.xyz').touch()
    answer(run, photos)
    assert f'passed over, as their names claim no picture: 1 file named .xyz (for example {photos}/x.xyz)' in (
        capsys.readouterr().err)
    assert answer(run, tmp_path / 'empty') == 1
    assert f'no pictures in {tmp_path}/empty, but 1 file named .xyz' in capsys.readouterr().err


def stdin(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, 'stdin', types.SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(content))))


def test_a_line_of_a_list_names_a_file_whatever_it_is(monkeypatch):
    """Each - in it was another list on stdin; a thousand of them, too many for Python."""
    stdin(monkeypatch, b'-\n' * 3000)
    assert [path for path, _ in asked.find_pictures(['-'])] == ['-'] * 3000


def test_a_list_on_stdin_names_files_and_folders(run, photos, capsys, monkeypatch):
    stdin(monkeypatch, f'{photos}/e.jpg\n\n{photos}\r\n'.encode())
    answer(run, '-', '--jsonl')
    names = [Path(line['file']).name for line in json_lines(capsys)]
    assert names == ['e.jpg', 'a.jpg', 'b.jpg', 'c.jpg', 'd.png', 'e.jpg']


@pytest.mark.parametrize('content', [
    b'\xef\xbb\xbfa.jpg\nno such.jpg\n', b'a.jpg\0no such.jpg\0', b'a.jpg\0no such.jpg', b'a.jpg\r\nno such.jpg'])
def test_a_list_is_read_as_editors_and_find_write_it(photos, monkeypatch, content):
    monkeypatch.chdir(photos)
    stdin(monkeypatch, content)
    assert [(path, rejected is None) for path, rejected in asked.find_pictures(['-'])] == [
        ('a.jpg', True), ('no such.jpg', False)]


def test_a_name_with_a_line_break_can_stand_in_a_list_with_nuls(tmp_path, monkeypatch):
    names = [f'{tmp_path}/a\nb.jpg', f'{tmp_path}/c.jpg']
    for name in names:
        Path(name).touch()
    stdin(monkeypatch, '\0'.join(names).encode())
    assert list(asked.find_pictures(['-'])) == [(name, None) for name in names]


@pytest.mark.parametrize('codec', ['utf-16', 'utf-16-be'])
def test_a_list_that_is_utf_16_is_refused_as_what_it_is(run, monkeypatch, capsys, codec):
    stdin(monkeypatch, '\ufeffa.jpg\nb.jpg\n'.encode(codec))
    assert answer(run, '-') == 2
    assert 'UTF-16' in capsys.readouterr().err


def test_a_picture_whose_name_begins_as_a_flag_does_is_told_how_to_name_it(run, photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    (photos / '-x.jpg').write_bytes(toy_run.picture(1))
    assert answer(run, '-x.jpg') == 2
    assert './-x.jpg, or -- before it' in capsys.readouterr().err
    assert answer(run, './-x.jpg') == answer(run, '--', '-x.jpg') == 0
    assert answer(run, '-y.jpg') == 2
    assert './-y.jpg' not in capsys.readouterr().err


def test_names_reach_the_screen_escaped_and_json_as_they_are(run, tmp_path, capsys):
    folder = tmp_path / 'odd'
    folder.mkdir()
    for name in ('\x1b[31m\n.jpg', os.fsdecode(b'\xff.jpg')):
        (folder / name).write_bytes(toy_run.picture(1))
    answer(run, folder)
    answer(run, folder, '--csv')
    out = capsys.readouterr().out
    assert '\x1b' not in out and len(out.splitlines()) == 5 and '\\x1b[31m\\n.jpg' in out
    answer(run, folder, '--jsonl')
    names = [Path(line['file']).name for line in json_lines(capsys)]
    assert names == ['\x1b[31m\n.jpg', '\\xff.jpg']


@pytest.mark.parametrize('arguments, expected, code', [
    (['photo.jpg'], '--checkpoint_dir is missing', 2),
    (['--checkpoint_dir=c'], 'no pictures were named', 2),
    (['--checkpoint_dir=c', '--csv', '--jsonl', 'photo.jpg'], 'give one of them', 2),
    (['--checkpoint_dir=nowhere', 'photo.jpg'], 'nowhere is not a run', 1),
])
def test_a_command_line_that_cannot_be_carried_out_says_why(arguments, expected, code, capsys):
    assert predict.main(arguments) == code
    assert expected in capsys.readouterr().err


def test_a_folder_without_pictures_is_named(run, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert answer(run, tmp_path / 'empty') == 1
    assert f'no pictures in {tmp_path}/empty' in capsys.readouterr().err


# Threads --------------------------------------------------------------------------------------------------------


def test_threads_keep_the_order_and_read_ahead_no_more_than_they_may():
    """Memory stays flat: however many pictures there are, only so many are held."""
    begun, lock = [], threading.Lock()

    def work(item):
        with lock:
            begun.append(item)
        return item * item

    seen = []
    for item, result in pipeline._ahead(work, iter(range(500)), threads=4, most=10):
        assert result == item * item
        seen.append(item)
        assert len(begun) <= len(seen) + 11
    assert seen == list(range(500))


def test_a_picture_that_only_the_decoder_refuses_is_a_bad_file_too(run, photos, capsys, monkeypatch):
    monkeypatch.setattr(gate, 'admit', lambda data, **_: gate.Picture(data, 20, 24, (), b''))
    assert answer(run, photos, '--jsonl') == 1
    assert [line.get('error') for line in json_lines(capsys)] == [None, 'corrupt', None, 'corrupt', None]


# None of these -------------------------------------------------------------------------------------------------------


def trusted(run, **changes) -> None:
    values = {'temperature': 2.0, 'class_means': np.eye(3, 16, dtype=np.float32), 'energy_weight': 0.0,
              'scores': np.full(99, 2, np.float32)}  # No picture comes as near to a class.
    trust.write(run.directory, trust.Trust(3, trust.OUT_OF_FOLD, 99, 88, **values | changes))


FAMILIAR = {'scores': np.full(99, -2, np.float32)}


def test_probabilities_are_those_after_the_temperature(run, photos, capsys):
    answer(run, '--jsonl', '--top_k=9', photos / 'a.jpg')
    plain, = json_lines(capsys)
    trusted(run, **FAMILIAR)
    answer(run, '--jsonl', '--top_k=9', photos / 'a.jpg')
    tempered, = json_lines(capsys)
    likely, expected = ({one['label']: np.log(one['probability']) for one in found['answers']}
                        for found in (tempered, plain))
    apart = {label: 2 * (likely[label] - likely['red']) for label in likely}
    assert apart == pytest.approx({label: expected[label] - expected['red'] for label in likely}, abs=1e-3)
    assert tempered['unknown'] is False and tempered['familiarity'] == 1.0
    assert 'unknown' not in plain and 'familiarity' not in plain  # Nobody knows.


def test_a_picture_that_looks_like_no_class_is_unknown_in_every_format(run, photos, capsys):
    trusted(run)
    answer(run, photos / 'a.jpg')
    line, told = capsys.readouterr()
    label, likely, *rest, path = line.split()
    assert (label, likely, path) == ('unknown', '0.0100', str(photos / 'a.jpg')) and len(rest) == 4
    assert '1 unknown' in told
    answer(run, '--csv', photos / 'a.jpg')
    row, = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row['label_1'], float(row['probability_1'])) == ('unknown', 0.01)
    assert row['label_2'] in toy_run.LABELS and row['label_3'] in toy_run.LABELS and not row['error']
    answer(run, '--jsonl', photos / 'a.jpg')
    found, = json_lines(capsys)
    assert found['unknown'] is True and found['familiarity'] == pytest.approx(0.01)
    assert [one['label'] for one in found['answers']] == [row['label_2'], row['label_3'], found['answers'][2]['label']]


def test_keep_says_how_strange_a_picture_must_be_and_noabstain_that_none_is(run, photos, capsys):
    trusted(run)
    for flag, is_unknown in (('--keep=0.99', True), ('--keep=0.995', False), ('--noabstain', False)):
        answer(run, flag, photos / 'a.jpg')
        assert capsys.readouterr().out.startswith('unknown') == is_unknown, flag


def test_without_means_of_all_classes_nothing_is_unknown(run, photos, capsys):
    trusted(run, class_means=np.zeros((0, 16), np.float32))
    answer(run, '--jsonl', photos / 'a.jpg')
    assert 'unknown' not in json_lines(capsys)[0]


def test_what_the_network_calls_background_stays_background(tmp_path, photos, capsys):
    """It learned from pictures what is none of the classes."""
    run = toy_run.start_run(tmp_path / 'with_background', per_class=(9, 9, 9, 9))
    toy_run.save_checkpoint(run, step=3)
    trusted(run)
    answer(run, '--jsonl', '--top_k=1', *sorted(photos.glob('[ace].jpg')))
    for found in json_lines(capsys):
        assert found['unknown'] == (found['answers'][0]['label'] != 'background')


@pytest.mark.parametrize('engine', engines.FLOAT32)
def test_both_engines_find_a_picture_as_familiar(run, photos, engine, capsys):
    trusted(run, scores=np.linspace(-1, 1, 99, dtype=np.float32))
    answer(run, '--jsonl', f'--engine={engine}', photos / 'a.jpg')
    familiar = json_lines(capsys)[0]['familiarity']
    assert 0.05 < familiar < 1.0
    answer(run, '--jsonl', '--engine=tensorflow', photos / 'a.jpg')
    assert json_lines(capsys)[0]['familiarity'] == pytest.approx(familiar, abs=0.011)


# Into folders ------------------------------------------------------------------------------------------------


def standing(directory: Path) -> dict[str, list[str]]:
    return {folder.name: sorted(path.name for path in folder.iterdir()) for folder in sorted(directory.iterdir())}


@pytest.mark.parametrize('way', ['--sort_by=link', '--sort_by=copy'])
def test_every_picture_goes_into_the_folder_of_its_answer_and_stays_where_it_is(run, photos, tmp_path, way, capsys):
    before = {path: path.read_bytes() for path in photos.iterdir()}
    trusted(run)
    for first in (True, False):
        assert answer(run, '--jsonl', '--keep=0.99', f'--sort_into={tmp_path}/sorted', way, photos) == 1
        out, told = capsys.readouterr()
        assert ('5 new' if first else '0 new') in told and ('5 were there' in told) != first
        expected = {}
        for found in map(json.loads, out.splitlines()):
            label = 'no_answer' if 'error' in found else 'unknown' if found['unknown'] else found['answers'][0]['label']
            expected.setdefault(label, []).append(Path(found['file']).name)
        assert standing(tmp_path / 'sorted') == dict(sorted(expected.items()))
        assert {'no_answer', 'unknown'} <= set(expected)
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    assert not any(path.is_symlink() for path in photos.iterdir())


def test_what_was_sorted_among_the_pictures_is_not_asked_about_again(run, photos, capsys):
    for _ in range(2):
        answer(run, f'--sort_into={photos}/sorted', photos)
        assert len(capsys.readouterr().out.splitlines()) == 5
    for inside in (photos, photos / 'sorted', next((photos / 'sorted').iterdir())):
        assert answer(run, f'--sort_into={photos}/sorted' if inside != photos else f'--sort_into={photos}', inside) == 2
        assert 'lies in --sort_into' in capsys.readouterr().err
    assert set(standing(photos / 'sorted')['no_answer']) == {'b.jpg', 'd.png'}


def test_a_directory_that_nothing_can_be_written_to_is_said_before_the_work(run, photos, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert answer(run, f'--sort_into={tmp_path}/file', photos) == 1
    out, told = capsys.readouterr()
    assert not out and '--sort_into' in told
    assert answer(run, '--sort_by=copy', photos) == 2
