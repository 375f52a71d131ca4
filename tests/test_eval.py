"""`finetune eval`, on records of tiny pictures.

Where the network matters, it is the toy one with random weights. Where only what is made of its answers matters, it
says 'green' to everything: 4 of the 11 records are.
"""

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

from finetune import eval
from finetune.console.errors import OutputLost
from finetune.console.lazy import tf
from finetune.evaluation import answers, drawings, inference, metrics, results
from finetune.models import engines
from finetune.records import batches, dataset
from finetune.runs import trust
from finetune.runs.history import MetricsFile
from finetune.runs.run import Run
from finetune.runs.state import State, build_model
from finetune.training import towers
from tests import toy, toy_run


@pytest.fixture
def data(tmp_path):
    """11 records a split: with batches of 4 the last one holds 3."""
    return toy_run.write_records(tmp_path / 'data', train=[0, 5, 4, 2], validation=[0, 5, 4, 2])


@pytest.fixture
def run(tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=1999)
    return run


def evaluate(run, data, *flags: str) -> int:
    return eval.main([f'--checkpoint_dir={run.directory}', f'--data_dir={data.directory}', '--run_once',
                      '--batch_size=4', *flags])


def written(run, split='validation') -> dict:
    return json.loads((run.directory / 'eval' / split / 'metrics.json').read_text())


def outputs(run, data, num_gpus=1):
    strategy = towers.strategy(num_gpus)
    logits_of = engines.function(run.load(strategy=strategy).model)
    return inference.outputs(logits_of, batches.for_evaluation(data, 'validation', 32, 0.875, 4), strategy)


@pytest.fixture
def all_green(monkeypatch):
    """Answers without a network: 'green' for every record, and the surer the later it comes."""
    labels = np.array([1, 1, 1, 2, 2, 3, 1, 1, 2, 2, 3], np.int32)  # Every other record is in the second shard.
    places = [*range(0, 11, 2), *range(1, 11, 2)]
    logits = np.zeros((11, 4), np.float32)
    logits[:, 2] = 1 + np.arange(11)
    filenames = [f'{toy_run.LABELS[label]}/{place}.jpg'.encode() for label, place in zip(labels, places, strict=True)]
    monkeypatch.setattr(answers, 'answer', lambda *_: inference.Outputs(labels, logits, filenames))


# Counting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('num_gpus', [1, 2])
def test_every_image_counts_once_with_a_partial_last_batch(run, data, num_gpus):
    assert evaluate(run, data, f'--num_gpus={num_gpus}') == 0
    assert written(run)['records'] == 11
    assert {row['label']: row['records'] for row in written(run)['classes'] if row['records']} == {
        'blue': 5, 'green': 4, 'red': 2}


@pytest.mark.slow
def test_two_towers_say_what_one_says_of_every_file(run, data):
    one, two = outputs(run, data, 1), outputs(run, data, 2)
    assert one.filenames == two.filenames and len(set(one.filenames)) == 11
    assert (one.labels == two.labels).all()
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-5)


def test_num_examples_are_counted_as_asked_not_rounded_to_batches(run, data):
    evaluate(run, data, '--num_examples=6')
    assert written(run)['records'] == 6 and written(run)['subset_records'] == 11


def test_labels_survive_a_class_missing_from_validation(tmp_path, run):
    data = toy_run.write_records(tmp_path / 'gap', validation=[0, 3, 0, 2])
    evaluate(run, data)
    records_of = {row['label']: row['records'] for row in written(run)['classes']}
    assert (records_of['blue'], records_of.get('green', 0), records_of['red']) == (3, 0, 2)


def test_averages_are_used_unless_they_are_turned_off(run, data):
    evaluate(run, data)
    averaged = written(run)
    evaluate(run, data, '--noaverages')
    assert (averaged['averages'], written(run)['averages']) == (True, False)
    assert averaged['figures']['loss'] != written(run)['figures']['loss']


def test_the_mistakes_come_with_the_pictures_that_were_mistaken(run, data, monkeypatch):
    shown = []
    monkeypatch.setattr(results, 'write', lambda directory, scores, examples, found: shown.extend(examples) or [])
    evaluate(run, data)
    assert shown
    for example in shown:
        place = int(re.search(rb'(\d+)\.jpg', example.filename)[1])
        assert example.encoded == toy_run.picture(place)


@pytest.mark.slow
def test_a_fresh_process_without_gpus_has_the_towers_that_are_asked_for():
    code = 'from finetune.training import towers; print(towers.strategy(2).num_replicas_in_sync)'
    environment = os.environ | {'CUDA_VISIBLE_DEVICES': ''}
    made = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == '2'


# What it says and leaves behind -------------------------------------------------------------------------------


def test_the_lines_are_those_that_scripts_of_the_original_parse(run, data, all_green, capsys):
    evaluate(run, data)
    lines = capsys.readouterr().out.splitlines()
    now = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}'
    assert lines[0] == f'Successfully loaded model from {run.directory}/ckpt-1999 at step=1999.'
    assert re.fullmatch(rf'{now}: starting evaluation on \(validation\)\.', lines[1])
    assert re.fullmatch(rf'{now}: precision @ 1 = 0\.3636 recall @ 5 = 1\.0000 \[11 examples\]', lines[2])
    assert lines[3] == 'precision @ 1 lies between 0.1517 and 0.6462 (95 % interval after Wilson)'
    assert lines[4] == 'recall @ 5 is trivial: there are no more than 5 classes to choose from'


CHOSEN = 'this epoch was chosen on these pictures, as the best of 3; the interval knows nothing of that'


def measured(run, data, steps=3) -> None:
    """As if every one of the last steps had been validated on these records, and step 1999 had won."""
    run.keep_as_best(1999)
    run.change(run.recipe, run.records | {'fingerprint': data.fingerprint}, run.kernels)
    table = MetricsFile(run.directory / 'metrics.csv')
    table.append({'step': 1})  # Not validated.
    for step in range(2000 - steps, 2000):
        table.append({'step': step, 'validation_precision_at_1': '0.5'})


def test_the_interval_of_the_best_of_many_epochs_says_that_they_were_chosen_on_these_pictures(
    run, data, all_green, capsys,
):
    """The best of many is partly the luckiest, and an interval after Wilson is that of one that was not chosen."""
    measured(run, data)
    evaluate(run, data)
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith('precision @ 1 lies between') and lines[4].startswith(CHOSEN)
    assert written(run)['best_of'] == 3
    evaluate(run, data, '--checkpoint=1999')
    assert CHOSEN in capsys.readouterr().out


def test_the_choice_names_the_test_set_where_there_is_one_and_the_test_set_names_no_choice(
    tmp_path, run, all_green, capsys,
):
    """Its number is the one without that optimism."""
    data = toy_run.write_records(tmp_path / 'thirds', train=[0, 5, 4, 2], validation=[0, 5, 4, 2], test=[0, 5, 4, 2])
    measured(run, data)
    evaluate(run, data)
    chosen, = (line for line in capsys.readouterr().out.splitlines() if line.startswith(CHOSEN))
    assert '--subset=test' in chosen
    evaluate(run, data, '--subset=test')
    out = capsys.readouterr().out
    assert 'starting evaluation on (test).' in out and 'was chosen' not in out and '--subset=test' not in out
    assert (written(run, 'test')['best_of'], written(run, 'test')['subset_records']) == (1, 11)


@pytest.mark.parametrize(('split', 'told'), [('test', True), ('validation', False)])
def test_a_test_set_of_other_records_than_the_run_was_trained_on_is_told(tmp_path, run, all_green, capsys, split, told):
    """A test set that is switched on after the training holds pictures that were trained on."""
    data = toy_run.write_records(tmp_path / 'thirds', validation=[0, 5, 4, 2], test=[0, 5, 4, 2])
    evaluate(run, data, f'--subset={split}')
    assert ('trained on other records' in capsys.readouterr().err) == told
    measured(run, data)
    evaluate(run, data, f'--subset={split}')
    assert 'trained on other records' not in capsys.readouterr().err


def test_where_there_is_no_test_set_none_is_named(run, data, all_green, capsys):
    measured(run, data)
    evaluate(run, data)
    assert CHOSEN in (out := capsys.readouterr().out) and '--subset' not in out


@pytest.mark.parametrize('why', [
    'another split', 'other records', 'one epoch', 'the last', 'no validation', 'no table'])
def test_an_interval_that_hides_no_choice_stands_alone(tmp_path, run, data, all_green, capsys, why):
    if why != 'no validation':
        measured(run, data, steps=1 if why == 'one epoch' else 3)
    if why == 'no table':
        (run.directory / 'metrics.csv').write_text('saved;by;a;spreadsheet')
    if why == 'other records':
        data = toy_run.write_records(tmp_path / 'others', validation=[0, 4, 4, 3])
    evaluate(run, data, *{'another split': ['--subset=train'], 'the last': ['--checkpoint=last']}.get(why, []))
    assert 'was chosen' not in capsys.readouterr().out
    assert written(run, 'train' if why == 'another split' else 'validation')['best_of'] == 1


def test_the_tables_hold_the_classes_that_occur(run, data, all_green, capsys):
    evaluate(run, data)
    out = capsys.readouterr().out
    assert 'blue         5          -  0.0000  0.0000' in out.splitlines()
    assert 'green        4     0.3636  1.0000  0.5333' in out.splitlines()
    assert 'blue      .      5    .' in out.splitlines() and 'background  ' not in out


def test_the_confusion_of_many_classes_is_a_list_of_the_most_frequent():
    labels = np.repeat(np.arange(1, 41), 2).astype(np.int32)
    logits = np.zeros((80, 41), np.float32)
    logits[:, 7] = 1
    scores = metrics.score(labels, logits, ['background', *(f'class_{i}' for i in range(1, 41))])
    lines = results.confusion_table(scores, width=100).splitlines()
    assert lines[0] == 'Confusion: the 20 most frequent of 39 kinds of mistake'
    assert lines[2].split() == ['class_1', 'class_7', '2'] and len(lines) == 22


def test_a_matrix_too_wide_for_any_screen_is_not_even_written(monkeypatch):
    """Of 5000 classes it would be 25 million cells of text, made only to be thrown away."""
    headers = []
    monkeypatch.setattr(results, 'table', lambda rows, header, title: headers.append(header) or title)
    names = [f'class_{i}' for i in range(30)]
    scores = metrics.score(np.arange(1, 31), np.eye(31, dtype=np.float32)[[7] * 30], ['background', *names])
    assert 'most frequent of 29 kinds' in results.confusion_table(scores, width=90)
    assert headers == [('true', 'answered', 'records')]
    results.confusion_table(scores, width=100)
    assert headers[1] == ('true', *names)


def test_it_writes_pictures_a_list_and_scalars(run, data, all_green):
    evaluate(run, data)
    folder = run.directory / 'eval' / 'validation'
    rows = list(csv.DictReader((folder / 'mistakes.csv').open()))
    assert [row['filename'] for row in rows] == [
        'red/9.jpg', 'blue/3.jpg', 'blue/1.jpg', 'red/10.jpg', 'blue/4.jpg', 'blue/2.jpg', 'blue/0.jpg']
    assert [row['place'] for row in rows] == list('1234567') and {row['answered'] for row in rows} == {'green'}
    for name in ('confusion.png', 'mistakes.png'):
        Image.open(folder / name).load()
    events = tf.compat.v1.train.summary_iterator(str(next(folder.glob('events.*'))))
    scalars = {value.tag: (event.step, float(tf.make_ndarray(value.tensor))) for event in events
               for value in event.summary.value}
    assert scalars == {'Precision @ 1': (1999, pytest.approx(4 / 11)), 'Recall @ 5': (1999, 1.0)}


def test_json_on_stdout_is_one_line_and_the_same_as_the_file(run, data, all_green, capsys):
    evaluate(run, data, '--json')
    line, = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found == written(run)
    assert found['figures']['precision@1'] == 4 / 11 and found['data_fingerprint'] == data.fingerprint
    assert found['confusions'][0] == {'true': 'blue', 'answered': 'green', 'records': 5}


def test_results_of_another_split_or_place_stand_apart(run, data, all_green, tmp_path):
    evaluate(run, data, '--subset=train')
    evaluate(run, data, f'--eval_dir={tmp_path}/elsewhere')
    assert written(run, 'train')['subset'] == 'train'
    assert (tmp_path / 'elsewhere' / 'metrics.json').exists()
    assert not (run.directory / 'eval' / 'validation').exists()


@pytest.mark.parametrize(('format', 'mode'), [('JPEG', 'RGB'), ('JPEG', 'L'), ('PNG', 'RGB')])
def test_a_tile_keeps_no_more_of_a_large_photo_than_is_drawn(format, mode):
    """Fifty photos of 12 megapixels, whole in memory, take 2 GB."""
    photo = toy.picture(3, size=(900, 600)).convert(mode)
    mistake = metrics.Mistake(0, 1, 2, 0.9, 0.1)
    tile = results._tile(1, results.Example(mistake, b'blue/1.jpg', toy.encoded(photo, format)), toy_run.LABELS)
    assert tile.picture.size == (drawings.TILE, 107)
    expected = photo.convert('RGB').resize(tile.picture.size, Image.Resampling.LANCZOS)
    sheet = drawings.contact_sheet([tile], 'title')
    drawn = sheet.crop((16, 56 + drawings.TILE - 107, 16 + drawings.TILE, 56 + drawings.TILE))
    assert np.abs(np.subtract(drawn, expected, dtype=float)).mean() < 3


def test_names_in_another_script_are_drawn_or_numbered():
    scores = metrics.score(np.array([1, 2]), np.eye(3, dtype=np.float32)[[1, 1]], ['background', '花', 'a' * 300])
    names = [drawings.name_of(label, number) for number, label in enumerate(scores.labels)]
    picture = drawings.confusion(scores.confusion(range(3)), names, 'title')
    assert names[1] in ('花', 'class 1') and max(picture.size) < 1000


# Requirements and errors --------------------------------------------------------------------------------------


def test_a_missed_requirement_ends_with_3_after_everything_was_written(run, data, all_green, capsys):
    assert evaluate(run, data, '--require=recall@5>=0.9, precision@1>=0.9') == 3
    assert 'error: --require is not met: precision@1>=0.9, but it is 0.3636.' in capsys.readouterr().err
    assert written(run)['requirements'] == {'recall@5>=0.9': True, 'precision@1>=0.9': False}


def test_a_met_requirement_ends_with_0(run, data, all_green):
    assert evaluate(run, data, '--require=precision@1>0.36') == 0


@pytest.mark.parametrize('flags, expected', [
    (['--run_once', '--data_dir=d'], '--checkpoint_dir is missing'),
    (['--run_once', '--checkpoint_dir=c'], '--data_dir is missing'),
    (['--run_once', '--checkpoint_dir=c', '--data_dir=d', '--checkpoint=newest'], 'expected best, last, or a step'),
    (['--run_once', '--checkpoint_dir=c', '--data_dir=d', '--require=precision'], 'expected NAME>=NUMBER'),
    (['--checkpoint_dir=c', '--data_dir=d', '--require=loss<1'], 'add --run_once'),
    (['--run_once', '--checkpoint_dir=c', '--data_dir=d', 'photo.jpg'], 'finetune predict takes pictures'),
])
def test_a_command_line_that_cannot_be_carried_out_ends_with_2_and_says_why(flags, expected, capsys):
    assert eval.main(flags) == 2
    assert expected in capsys.readouterr().err


def test_a_run_without_a_checkpoint_names_the_directory_and_says_to_train(tmp_path, data, capsys):
    run = toy_run.start_run(tmp_path / 'empty')
    assert evaluate(run, data) == 1
    error = capsys.readouterr().err
    assert str(run.directory) in error and 'no checkpoint file found' in error and 'Train first' in error


def test_records_with_other_labels_are_refused_with_the_first_difference(tmp_path, run, capsys):
    other = toy_run.write_records(tmp_path / 'other', ('background', 'blue', 'red'), validation=[0, 2, 2])
    assert evaluate(run, other) == 1
    error = capsys.readouterr().err
    assert "label 2 is 'green' in" in error and "'red' in" in error
    assert f'--labels_file={run.directory}/labels.txt' in error


def test_a_damaged_shard_is_named(run, data, capsys):
    shard = data.directory / 'validation-00001-of-00002'
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert evaluate(run, data) == 1
    assert f'{shard}: its sha256 differs' in capsys.readouterr().err


def test_weights_that_are_not_numbers_are_an_error_and_no_precision(tmp_path, data, capsys):
    run = toy_run.start_run(tmp_path / 'nan', moving_average_decay=0.0)
    model = build_model(run.recipe, 4)
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan))
    run.save(State(model))
    assert evaluate(run, data) == 1
    assert 'weights are not finite' in capsys.readouterr().err


# Checkpoints that come and go ----------------------------------------------------------------------------------


def watch(run, data, monkeypatch, *events) -> int:
    """Watches; each event happens in one sleep between two looks, Ctrl-C in the sleep after them."""
    happens = iter([*events, lambda: (_ for _ in ()).throw(KeyboardInterrupt)])
    monkeypatch.setattr(eval.time, 'sleep', lambda seconds: next(happens)())
    return eval.main([f'--checkpoint_dir={run.directory}', f'--data_dir={data.directory}'])


def test_watching_evaluates_every_new_checkpoint_once_and_ends_on_ctrl_c(run, data, all_green, monkeypatch, capsys):
    rc = watch(run, data, monkeypatch, lambda: toy_run.save_checkpoint(run, 2500), lambda: None)
    assert rc == 130
    assert re.findall(r'at step=(\d+)\.', capsys.readouterr().out) == ['1999', '2500']
    assert written(run)['step'] == 2500


def test_watching_waits_for_a_run_that_has_not_begun(tmp_path, data, all_green, monkeypatch, capsys):
    def begin():
        toy_run.save_checkpoint(toy_run.start_run(tmp_path / 'later'), 10)

    directory = type('NotYet', (), {'directory': tmp_path / 'later'})
    assert watch(directory, data, monkeypatch, begin) == 130
    assert 'at step=10.' in capsys.readouterr().out


def test_records_that_are_built_again_while_they_are_read_give_no_figures(run, data, monkeypatch, capsys):
    """Their classes may be numbered anew, so that every answer would be compared with another label."""
    real = inference.outputs

    def build_again_meanwhile(*args):
        shutil.rmtree(data.directory)
        toy_run.write_records(data.directory, train=[0, 5, 4, 2], validation=[0, 4, 5, 2])
        return real(*args)

    monkeypatch.setattr(inference, 'outputs', build_again_meanwhile)
    assert evaluate(run, data) == 1
    assert 'were built again while they were read' in capsys.readouterr().err


def test_watching_sees_the_records_that_are_there_now(run, data, all_green, monkeypatch, capsys):
    def build_again():
        shutil.rmtree(data.directory)
        toy_run.write_records(data.directory, train=[0, 5, 4, 3], validation=[0, 5, 4, 2])
        toy_run.save_checkpoint(run, 2500)

    watch(run, data, monkeypatch, build_again)
    assert written(run)['data_fingerprint'] == dataset.open_records(data.directory).fingerprint != data.fingerprint


def test_a_split_that_is_not_there_is_said_before_a_checkpoint_is_waited_for(run, data, capsys):
    assert eval.main([f'--checkpoint_dir={run.directory}', f'--data_dir={data.directory}', '--subset=test']) == 1
    assert not (run.directory / 'eval').exists() and 'test' in capsys.readouterr().err


def test_a_checkpoint_that_disappears_is_passed_over_while_watching(run, data, all_green, monkeypatch, capsys):
    toy_run.save_checkpoint(run, 2500)
    load = Run.load

    def load_too_late(self, which, *more):
        if which == 1999:
            for file in self.directory.glob('ckpt-1999.*'):
                file.unlink()
        return load(self, which, *more)

    monkeypatch.setattr(Run, 'load', load_too_late)
    assert watch(run, data, monkeypatch) == 130
    out = capsys.readouterr()
    assert re.findall(r'at step=(\d+)\.', out.out) == ['2500']
    assert 'the checkpoint of step 1999 is passed over: training keeps only the newest few' in out.err


def test_a_checkpoint_that_disappears_is_replaced_by_its_successor_with_run_once(
    run, data, all_green, monkeypatch, capsys,
):
    read = Run._read

    def read_too_late(self, checkpoint, name):
        if name == 'ckpt-1999':
            for file in self.directory.glob('ckpt-1999.*'):
                file.unlink()
            toy_run.save_checkpoint(self, 2500)
        return read(self, checkpoint, name)

    monkeypatch.setattr(Run, '_read', read_too_late)
    assert evaluate(run, data) == 0
    assert 'at step=2500.' in capsys.readouterr().out


def test_the_named_checkpoint_is_the_one_that_is_evaluated(run, data, all_green, capsys):
    toy_run.save_checkpoint(run, 2500)
    run.keep_as_best(1999)
    for flags in ([], ['--checkpoint=best'], ['--checkpoint=1999'], ['--checkpoint=last'], ['--checkpoint=2500']):
        evaluate(run, data, *flags)
    assert re.findall(r'at step=(\d+)\.', capsys.readouterr().out) == ['1999', '1999', '1999', '2500', '2500']


# Where it cannot be written or shown ------------------------------------------------------------------------


def test_a_directory_that_may_not_be_written_is_refused_before_the_pass(run, data, monkeypatch, capsys):
    """After it, an hour would be lost. Root may write everywhere: the refusal is played."""
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, 'TemporaryFile', refused)
    monkeypatch.setattr(answers, 'answer', pytest.fail)
    (run.directory / 'eval/validation').mkdir(parents=True)
    assert evaluate(run, data) == 1
    told = capsys.readouterr().err
    assert f'{run.directory}/eval/validation: Permission denied' in told and 'another --eval_dir' in told


def test_results_are_written_although_their_reader_is_gone(run, data, all_green, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            if 'precision @ 1' in text:
                raise OutputLost(signal.SIGPIPE)
            return len(text)

    monkeypatch.setattr(sys, 'stdout', Gone())
    assert evaluate(run, data) == 141
    assert written(run)['records'] == 11


def test_results_are_shown_although_the_disk_is_full(run, data, all_green, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'metrics.json')

    monkeypatch.setattr(results, 'write', full)
    assert evaluate(run, data) == 1
    assert 'precision @ 1 = 0.3636' in capsys.readouterr().out


# How far the probabilities can be believed ---------------------------------------------------------------------------


def fitted(run, fitted_on=trust.OUT_OF_FOLD, step=1999, **changes) -> trust.Trust:
    values = {'temperature': 2.0, 'class_means': np.eye(3, 16, dtype=np.float32), 'energy_weight': 0.0,
              'scores': np.linspace(0.1, 0.9, 99, dtype=np.float32)}
    found = trust.Trust(step, fitted_on, 99, 88, **values | changes)
    trust.write(run.directory, found)
    return found


def test_calibration_is_told_before_and_after_and_changes_no_count(run, data, capsys):
    assert evaluate(run, data) == 0
    without = written(run)
    assert without['calibration'] is None
    fitted(run)
    assert evaluate(run, data) == 0
    found = written(run)
    assert (found['figures'], found['confusions']) == (without['figures'], without['confusions'])
    calibration = found['calibration']
    assert calibration['temperature'] == 2.0 and calibration['fitted_on'] == trust.OUT_OF_FOLD
    assert calibration['before']['nll'] == pytest.approx(found['figures']['loss'], rel=1e-5)
    logits = outputs(run, data).logits / 2
    labels = outputs(run, data).labels
    expected = np.mean(metrics.log_sum_exp(logits) - logits[np.arange(len(labels)), labels])
    assert calibration['after']['nll'] == pytest.approx(expected, rel=1e-4)
    assert 'temperature 2.00: log loss' in capsys.readouterr().out


@pytest.mark.parametrize('engine', engines.FLOAT32)
def test_pictures_that_would_be_called_unknown_are_counted(run, data, engine, capsys):
    fitted(run, scores=np.full(99, 2, np.float32))  # No picture comes as near.
    assert evaluate(run, data, f'--engine={engine}') == 0
    assert written(run)['calibration']['unknown'] == 11
    fitted(run, scores=np.full(99, -2, np.float32))
    assert evaluate(run, data, f'--engine={engine}') == 0
    assert written(run)['calibration']['unknown'] == 0
    fitted(run, class_means=np.zeros((0, 16), np.float32))
    assert evaluate(run, data, f'--engine={engine}') == 0
    assert written(run)['calibration']['unknown'] is None


def test_a_temperature_is_not_praised_for_the_pictures_that_it_was_fitted_to(data, tmp_path):
    run = toy_run.start_run(tmp_path / 'fitted')
    run.change(run.recipe, run.records | {'fingerprint': data.fingerprint}, run.kernels)
    toy_run.save_checkpoint(run, step=1999)
    fitted(run, trust.VALIDATION)
    assert evaluate(run, data) == 0
    assert written(run)['calibration']['after_is_by_halves_in_turn']
    fitted(run, trust.OUT_OF_FOLD)
    assert evaluate(run, data) == 0
    assert not written(run)['calibration']['after_is_by_halves_in_turn']


def test_mistakes_have_the_probabilities_that_predict_gives(run, data):
    assert evaluate(run, data) == 0
    before = mistake_probabilities(run)
    fitted(run)
    assert evaluate(run, data) == 0
    assert max(mistake_probabilities(run)) < max(before)


def mistake_probabilities(run) -> list[float]:
    rows = csv.DictReader((run.directory / 'eval/validation/mistakes.csv').open())
    return [float(row['probability']) for row in rows]
