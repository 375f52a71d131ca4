"""What a program does with `import finetune`, on tiny pictures and a network that knows nothing."""

import ast
import concurrent.futures
import importlib
import inspect
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import finetune
from finetune.console.lazy import tf
from finetune.console.terminal import Progress
from finetune.runs.run import Run
from tests import toy, toy_run

HOME = Path(__file__).parents[1]
MANY = 40


@pytest.fixture
def run(tmp_path):
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, step=3)
    return finetune.open(run.directory)


@pytest.fixture
def photos(tmp_path):
    """Class folders of a dozen pictures each, which their colours tell apart."""
    return toy.class_folders(tmp_path / 'photos', {'rose': 12, 'tulip': 12}, size=(64, 48))


@pytest.fixture
def noise():
    """As many pictures as fill more than one batch."""
    return [toy_run.picture(seed) for seed in range(MANY)]


def program(text: str, *, cwd=HOME) -> str:
    done = subprocess.run([sys.executable, '-c', text], cwd=cwd, capture_output=True, text=True, check=False,
                          env=os.environ | {'PYTHONPATH': str(HOME)})
    assert done.returncode == 0, done.stderr
    return done.stdout


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('before', [
    '', 'import finetune.train', 'from finetune import train', 'import finetune.interface', 'finetune.train',
    'from finetune import build, check, compare, eval, export, predict, project'])
def test_a_verb_can_be_called_and_is_its_module_in_whatever_order_things_were_imported(before):
    """The import system binds the module under the very name that the function has."""
    told = program(f'''
import finetune
{before}
from finetune import train
import finetune.train as again
assert finetune.train is train is again, finetune.train
try:
    finetune.train("nowhere", "run")
except finetune.Error as error:
    print(error)
print(train.main(["--data_dir=nowhere"]), train.FLAGS.command)''')
    assert told.splitlines()[0].startswith('nowhere') and told.splitlines()[-1] == '1 finetune train'


def test_a_module_of_a_verb_still_is_a_program():
    done = subprocess.run([sys.executable, '-W', 'error', '-m', 'finetune.train', '--help'], cwd=HOME,
                          capture_output=True, text=True, check=True)
    assert done.stdout.startswith('usage: finetune train') and not done.stderr


def test_every_public_name_is_there_and_no_other():
    assert all(hasattr(finetune, name) for name in finetune.__all__)
    assert set(finetune.__all__) <= set(dir(finetune))
    with pytest.raises(AttributeError, match='nonsense'):
        finetune.nonsense  # noqa: B018
    assert all(callable(getattr(finetune, verb)) for verb in finetune.VERBS)
    assert not callable(importlib.import_module('finetune.recipes'))
    assert isinstance(finetune.train, types.ModuleType)


def test_the_names_that_type_checkers_see_are_those_that_are_there():
    text = (HOME / 'finetune/__init__.py').read_text()
    declared = {line.split()[-1] for line in text.splitlines() if line.startswith('    from finetune.')}
    assert declared == set(finetune.__all__)


def test_to_import_it_takes_no_time():
    """20 ms of its own on a quiet machine; an import of NumPy or absl would double that, TensorFlow takes seconds."""
    told = program('''
import sys, time
started = time.perf_counter()
import finetune
print(time.perf_counter() - started, sorted({"numpy", "absl", "tensorflow", "rich", "PIL"} & {*sys.modules}))''')
    seconds, modules = told.split(' ', 1)
    assert float(seconds) < 0.1 and modules == '[]\n'


def test_to_open_a_run_and_to_mistype_do_not_wait_for_tensorflow(run):
    told = program(f'''
import sys, finetune
run = finetune.open({str(run.directory)!r})
print(run.labels, run.scores)
try:
    run.predict([], top=3)
except finetune.UsageError as error:
    print(error)
print("tensorflow" in sys.modules)''')
    assert told.splitlines()[0] == "('blue', 'green', 'red') None"
    assert 'Did you mean top_k?' in told and told.endswith('False\n')


def test_keras_with_another_backend_is_an_error_that_says_so(tmp_path):
    (tmp_path / 'keras.py').write_text('class backend:\n    backend = staticmethod(lambda: "jax")\n')
    told = program('''
import keras, finetune
try:
    finetune.open("x")
except Exception as error:
    print(type(error).__name__, error)''', cwd=tmp_path)
    assert told.startswith('Error Keras was imported before finetune, with the backend jax')


# Keywords are the flags -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('keywords', 'sentence'), [
    ({'epcohs': 3}, "'epcohs' is no keyword.*`finetune train --help`. Did you mean epochs"),
    ({'epochs': 'many'}, 'epochs'), ({'views': 0}, 'views'), ({'views': 1.5}, 'views'), ({'views': True}, 'views'),
    ({'fine_tune': 3}, 'expected true or false'), ({'optimizer': 'adm'}, 'rmsprop'), ({'json': True}, 'no keyword'),
    ({'flagfile': '/etc/passwd'}, 'no keyword'), ({'nofine_tune': True}, 'no keyword'), ({'help': True}, 'no keyword'),
])
def test_a_wrong_keyword_is_answered_as_a_wrong_flag(keywords, sentence):
    with pytest.raises(finetune.UsageError, match=sentence):
        finetune.train('records', 'run', **keywords)


@pytest.mark.parametrize(('wrong', 'sentence'), [
    (lambda: finetune.eval('run', 'records', json=True), '--help`, but for eval_interval_secs, json and run_once.$'),
    (lambda: finetune.open('run', top_k=3), 'there are averages and checkpoint.$'),
    (lambda: finetune.open('run', checkpont='last'), 'Did you mean checkpoint'),
    (lambda: finetune.project('PHOTOS', labels='x'), '`finetune PHOTOS --help`')])
def test_a_flag_that_is_no_keyword_is_answered_with_what_is(wrong, sentence):
    with pytest.raises(finetune.UsageError, match=sentence):
        wrong()


def test_values_mean_what_they_mean_when_they_are_typed():
    flags = finetune.train.FLAGS
    typed = flags.parse(['--lr=0.5', '--fine_tune', '--nokeep_best', '--feature_layers=a,b', '--data_dir=x y'])
    taken = flags.take({'lr': np.float32(0.5), 'fine_tune': True, 'keep_best': False, 'feature_layers': ['a', 'b'],
                        'data_dir': Path('x y'), 'epochs': None})
    assert vars(typed) | {'argv': ()} == vars(taken) | {'argv': ()}
    assert flags.take({}, '--odd', 'name').arguments == ['--odd', 'name']


@pytest.mark.parametrize('verb', finetune.VERBS)
def test_a_signature_tells_every_flag_with_its_default(verb):
    """Editors and notebooks complete keywords from there."""
    parameters = inspect.signature(getattr(finetune, verb)).parameters
    told = finetune.train.FLAGS.take({})
    assert 'json' not in parameters
    if verb == 'train':
        assert parameters['dropout'].default == told.dropout and parameters['fine_tune'].default is False
    assert len(parameters) > 5


def test_commands_in_several_threads_do_not_mix_their_flags():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: finetune.train.FLAGS.take({'max_steps': number}).max_steps,
                              range(1, 400)))
    assert found == list(range(1, 400))


# What a run says of pictures ------------------------------------------------------------------------------------------


def arrays(seed: int = 5, height: int = 31, width: int = 45) -> dict:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    return {'rgb': pixels[..., :3], 'grey': pixels[..., 0], 'grey [h, w, 1]': pixels[..., :1], 'rgba': pixels}


def saved(picture, path: Path, **options) -> Path:
    (picture if isinstance(picture, Image.Image) else Image.fromarray(np.squeeze(picture))).save(path, **options)
    return path


def said(answer) -> tuple:
    """All but where it came from."""
    return answer.top, answer.label, answer.error, answer.unknown


@pytest.mark.parametrize('kind', arrays())
def test_an_array_gets_the_answer_of_its_file(run, tmp_path, kind):
    array = arrays()[kind]
    of_array, of_file = run.predict([array, saved(array, tmp_path / 'a.png')])
    assert said(of_array) == said(of_file) and of_array.error is None
    assert of_array.path is None and of_file.path == str(tmp_path / 'a.png')


def test_an_image_of_pillow_gets_the_answer_of_its_file_with_exif_profile_and_transparency(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb, rgba = (Image.fromarray(arrays()[kind]) for kind in ('rgb', 'rgba'))
    files = [saved(rgb, tmp_path / 'turned.png', exif=exif), saved(rgba, tmp_path / 'transparent.png'),
             saved(rgb.convert('P'), tmp_path / 'palette.png'), saved(rgb.convert('1'), tmp_path / 'bits.png'),
             saved(rgb.convert('CMYK'), tmp_path / 'cmyk.tiff'),
             saved(Image.fromarray(arrays()['grey'].astype(np.uint16) * 257), tmp_path / 'deep.png')]
    answers = list(run.predict([*files, *map(Image.open, files)]))
    assert all(answer.error is None for answer in answers)
    assert list(map(said, answers[:len(files)])) == list(map(said, answers[len(files):]))
    upright = next(run.predict(rgb))
    assert upright.top != answers[0].top  # The turn was seen.


def test_bytes_are_the_file_they_are_of(run, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(toy_run.picture(1))
    answers = list(run.predict([toy_run.picture(1), bytearray(toy_run.picture(1)), tmp_path / 'a.jpg',
                                str(tmp_path / 'a.jpg')]))
    assert len({said(answer) for answer in answers}) == 1 and answers[0].label in run.labels
    assert 0 < answers[0].probability < 1 and answers[0].top[0] == (answers[0].label, answers[0].probability)


def test_one_picture_need_not_be_put_in_a_list(run, photos):
    one = photos / 'rose/0.jpg'
    for picture in (str(one), one, one.read_bytes(), Image.open(one), np.asarray(Image.open(one))):
        assert len(list(run.predict(picture))) == 1
    assert len(list(run.predict(np.stack([np.asarray(Image.open(one))] * 3)))) == 3
    assert [Path(answer.path).name for answer in run.predict(photos / 'rose')] == sorted(
        f'{number}.jpg' for number in range(12))


@pytest.mark.parametrize('dtype', [object, np.str_])
def test_names_in_an_array_are_several_pictures(run, photos, dtype):
    """As a column of a table is."""
    names = [str(photos / 'rose/0.jpg'), str(photos / 'tulip/1.jpg')]
    assert [answer.path for answer in run.predict(np.array(names, dtype))] == names


def test_what_is_no_good_picture_is_an_error_in_its_place(run, tmp_path):
    given = [toy_run.picture(1), b'<html>', b'', tmp_path / 'none.jpg', np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8),
             np.zeros((0, 4), np.uint8), toy_run.picture(1)[:-100], Image.open(io.BytesIO(toy_run.picture(1)[:-100])),
             toy_run.picture(2)]
    answers = list(run.predict(given))
    assert [answer.error is None for answer in answers] == [True] + [False] * 8 + [True]
    reasons = [answer.error.partition(':')[0] for answer in answers[1:-1]]
    assert reasons[:6] == ['not_an_image', 'empty_file', 'not_found', 'unfit_array', 'unfit_array', 'unfit_array']
    assert 'float64 [4, 4]; expected uint8 [h, w]' in answers[4].error
    assert all(answer.label is answer.probability is None and answer.top == () for answer in answers[1:-1])


@pytest.mark.parametrize('nothing', [3, None, {'a': 1}])
def test_what_is_no_picture_at_all_is_a_mistake_in_the_program(run, nothing):
    with pytest.raises(TypeError, match='is no picture: give paths'):
        list(run.predict([nothing]))


def test_a_dash_is_a_file_and_not_the_standard_input(run):
    assert next(run.predict('-')).error.startswith('not_found')


def test_eight_threads_get_the_answers_that_one_gets(run, noise):
    expected = [said(answer) for answer in finetune.open(run).predict(noise, batch_size=8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(lambda: [said(answer) for answer in run.predict(noise, batch_size=8)]) for _ in range(8)]
        for each in asked:
            assert each.result() == expected


def test_a_network_is_loaded_once_however_many_threads_want_it(run, monkeypatch):
    loads, load = [], Run.load
    monkeypatch.setattr(Run, 'load', lambda *arguments: loads.append(1) or time.sleep(0.1) or load(*arguments))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: run.model, range(4)))
    assert len(loads) == 1 and len({*map(id, models)}) == 1


def test_pictures_are_taken_as_answers_are(run):
    """A film of any length must not be read into memory first."""
    taken = itertools.count()
    frames = (np.full((16, 16, 3), next(taken) % 256, np.uint8) for _ in range(100_000))
    answers = run.predict(frames, batch_size=4)
    assert next(taken) == 0  # Nothing was asked for yet.
    for _ in range(8):
        next(answers)
    assert next(taken) < 8 + 8 * 4
    answers.close()


def test_an_array_may_be_written_to_again_once_it_was_given(run):
    """As cameras do."""
    apart = [np.full((16, 16, 3), level, np.uint8) for level in range(0, 250, 25)]

    def frames():
        buffer = np.empty((16, 16, 3), np.uint8)
        for frame in apart:
            buffer[:] = frame
            yield buffer

    assert list(map(said, run.predict(frames()))) == list(map(said, run.predict(apart)))


def test_features_are_what_the_head_reads(run, noise, tmp_path):
    features = run.features(noise)
    assert features.shape == (MANY, run.model.get_layer('head').input_shape[-1]) and features.dtype == np.float32
    logits = run.model.get_layer('head')(features, training=False).numpy()
    answered = [answer.top[0][0] for answer in run.predict(noise, abstain=False)]
    assert [run.labels[place] for place in logits[:, 1:].argmax(axis=1)] == answered
    with finetune.quiet(), pytest.warns(UserWarning, match='1 row of 3'):
        rows = run.features([noise[0], b'', noise[1]])
    assert np.isnan(rows[1]).all()
    np.testing.assert_allclose(rows[[0, 2]], features[:2], rtol=1e-5)
    assert run.features([]).shape == (0, features.shape[1])


def test_the_model_is_one_of_keras(run):
    logits = run.model(tf.zeros([2, 32, 32, 3]))
    assert logits.shape == (2, 1 + len(run.labels))


# The verbs with values ------------------------------------------------------------------------------------------------


def test_pictures_become_records_a_run_and_figures_in_one_program(photos, tmp_path, capfd):
    with finetune.quiet(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # That so few pictures say little.
        records = finetune.build(photos, tmp_path / 'records', validation_percent=25, num_threads=1)
        first = finetune.train(records, tmp_path / 'first', model='toy', image_size=32, max_steps=2)
        run = finetune.train(records, tmp_path / 'run', pretrained=first, fine_tune=True, freeze_backbone=True)
        assert run.scores is None
        found = run.evaluate(records, batch_size=4)
        again = finetune.eval(run, records, subset='train')
    assert isinstance(records, finetune.Records) and records.labels[1:] == ('rose', 'tulip')
    assert repr(records) == f'<finetune.Records {str(tmp_path / "records")!r}: 18 train, 6 validation; 2 classes>'
    assert isinstance(run, finetune.Run) and run.labels == ('rose', 'tulip')
    assert found['records'] == 6 and again['subset'] == 'train'
    assert run.scores in (found, again)
    assert f'precision@1 {run.scores["figures"]["precision@1"]:.4f}' in repr(run)
    with finetune.quiet():
        difference = finetune.compare(run, first, data_dir=records)
        findings = finetune.check(records, pretrained=first)
        answers = list(finetune.predict(run, photos))
        features = run.features(photos)
    assert len(answers) == len(features) == 24
    assert len(difference['runs']) == 2 and 'figures' in findings
    assert capfd.readouterr() == ('', '')


@pytest.mark.slow
def test_an_export_is_silent_where_it_is_asked_to_be(run, tmp_path, capfd):
    with finetune.quiet():
        written = finetune.export(run, tmp_path / 'exported', format='savedmodel', num_examples=3)
    assert (written / 'README.md').exists() and capfd.readouterr() == ('', '')


def test_a_folder_becomes_a_run_in_one_call(photos, tmp_path):
    first = toy_run.start_run(tmp_path / 'first')
    toy_run.save_checkpoint(first, step=1)
    with finetune.quiet(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        run = finetune.project(photos, output=tmp_path / 'project', effort='quick', pretrained=first.directory,
                               engine='tensorflow', num_threads=1)
        found = run.evaluate()  # On the records of the project that it is a run of.
    assert run.directory == tmp_path / 'project/head' and run.scores == found
    assert found['data'] == str(tmp_path / 'project/records')
    report = (tmp_path / 'project/report.html').read_text()
    assert f'finetune {photos}' in report and '--effort=quick' in report
    built_with = json.loads((tmp_path / 'project/project.json').read_text())['built_with']
    assert built_with.keys() - finetune.build.FLAGS.take({}).__dict__.keys() == set() and 'argv' not in built_with


def test_what_a_verb_says_is_said_unless_quiet_is_asked_for(photos, tmp_path, capsys):
    finetune.build(photos, tmp_path / 'records', num_threads=1)
    told = capsys.readouterr()
    assert 'made in' in told.out and 'pictures/s' in told.err


def test_quiet_keeps_warnings_for_the_filters_of_python(tmp_path, capsys):
    from finetune.console.terminal import say, show, warn

    with finetune.quiet(), pytest.warns(UserWarning, match='mind the gap'):
        warn('mind the gap')
        say('a remark')
        show('a result')
    assert capsys.readouterr() == ('', '')
    warn('again')
    assert capsys.readouterr().err == 'warning: again\n'


def test_quiet_is_of_the_thread_that_asked(capsys):
    from finetune.console.terminal import say

    with finetune.quiet():
        other = threading.Thread(target=say, args=('still there',))
        other.start()
        other.join()
    assert capsys.readouterr().err == 'still there\n'


def test_nothing_is_printed_but_by_what_can_be_turned_off():
    apart = 'console/command.py', 'console/terminal.py', 'exporting/clients/', 'exporting/trial.py'
    for path in (HOME / 'finetune').rglob('*.py'):
        name = path.relative_to(HOME / 'finetune').as_posix()
        if not name.startswith(apart):
            calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not any(isinstance(call, ast.Name) and call.id == 'print' for call in calls), name


def test_a_bar_is_quiet_too(capsys):
    with finetune.quiet(), Progress('Working', 3, 'things', interval_secs=0) as progress:
        progress.advance()
    assert capsys.readouterr() == ('', '')


def test_a_program_may_train_in_another_thread(photos, tmp_path):
    """Python takes signals in its first thread alone."""
    def work():
        with finetune.quiet(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            records = finetune.build(photos, tmp_path / 'records', num_threads=1)
            return finetune.train(records, tmp_path / 'run', model='toy', image_size=32, max_steps=1)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result().labels == ('rose', 'tulip')


def test_a_figure_that_is_missed_is_an_exception(run, tmp_path):
    records = toy_run.write_records(tmp_path / 'data', train=[0, 2, 2, 2], validation=[0, 2, 2, 2])
    with finetune.quiet(), pytest.raises(finetune.Error, match=r'precision@1'):
        run.evaluate(records, require='precision@1>1')


# Types ----------------------------------------------------------------------------------------------------------------

PROGRAM = '''
import pathlib
import finetune
import finetune.train

with finetune.quiet():
    records: finetune.Records = finetune.build("PHOTOS", pathlib.Path("data/photos"), validation_percent=20)
    run = finetune.train(records, "checkpoints/x", pretrained="imagenet", fine_tune=True)
try:
    scores = run.evaluate(records)
except finetune.UsageError as error:
    print(error)
for answer in finetune.open("checkpoints/x", checkpoint="last").predict(["a.jpg"]):
    if answer.label is not None and answer.probability is not None:
        print(answer.label.upper(), answer.probability + 1)
rows: int = run.features(["a.jpg"]).shape[0]
finetune.check(records)
'''


def checked_by_mypy(*arguments) -> str:
    pytest.importorskip('mypy', reason='mypy, of the extra dev, is not installed')
    return subprocess.run([sys.executable, '-m', 'mypy', *map(str, arguments)], cwd=HOME, capture_output=True,
                          text=True, check=False, env=os.environ | {'MYPYPATH': str(HOME)}).stdout


@pytest.mark.slow
def test_types_fit_where_they_are_public():
    assert checked_by_mypy().startswith('Success')


@pytest.mark.slow
@pytest.mark.parametrize(('wrong', 'verdict'), [
    ('', 'Success'), ('finetune.nonsense()', 'has no attribute "nonsense"'),
    ('finetune.open(3)', 'incompatible type "int"'),
    ('run.label', 'has no attribute "label"'), ('answer.label.upper()', 'Item "None"')])
def test_a_program_is_held_to_the_types(tmp_path, wrong, verdict):
    (tmp_path / 'program.py').write_text(PROGRAM + wrong)
    assert verdict in checked_by_mypy(tmp_path / 'program.py')


@pytest.mark.slow
def test_the_program_in_the_guide_is_one(tmp_path):
    shown, = re.findall(r'## From Python\n\n```python\n(.*?)```', (HOME / 'docs/guide.md').read_text(), re.DOTALL)
    (tmp_path / 'program.py').write_text(f'pillow_image = numpy_array = b""\n{shown}')
    assert checked_by_mypy(tmp_path / 'program.py').startswith('Success')
