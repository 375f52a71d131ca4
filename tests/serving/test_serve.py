"""`finetune serve`, as a command: the same answers as `finetune predict`, from runs and exports, and how it ends."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')

from finetune import export, predict, serve
from finetune.models import zoo
from finetune.runs.run import Run
from tests import toy_net
from tests.serving import started

WITHOUT_TENSORFLOW = """
import sys
from finetune.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print('tensorflow' in sys.modules, 'keras' in sys.modules, flush=True)
"""
TOY = "import sys; from tools.torture import warm; from finetune.__main__ import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope='module')
def toy_network():
    """For what is made once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
        yield


@pytest.fixture(scope='module')
def run(tmp_path_factory, toy_network):
    return started.run(tmp_path_factory.mktemp('served') / 'a run')


@pytest.fixture(scope='module')
def exports(run, tmp_path_factory):
    directory, names = tmp_path_factory.mktemp('exports'), ['savedmodel', 'openvino']
    pytest.importorskip('openvino')
    for name in names:
        assert export.main([str(run.directory), f'--output={directory}/{name}', f'--format={name}', '--num_examples=4',
                            '--keep=0.5']) == 0
    return directory


def predicted(run: Run, folder: Path, capsys) -> dict[str, dict]:
    for name, data in started.pictures().items():
        (folder / name).write_bytes(data)
    capsys.readouterr()
    predict.main([f'--checkpoint_dir={run.directory}', '--jsonl', '--keep=0.5', str(folder)])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {Path(line['file']).name: line | {'file': None} for line in lines}


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    if 'error' in expected:
        assert found == expected
        return
    assert [each['label'] for each in found['answers']] == [each['label'] for each in expected['answers']]
    for one, other in zip(found['answers'], expected['answers'], strict=True):
        assert one['probability'] == pytest.approx(other['probability'], abs=1e-4)
    assert found['unknown'] == expected['unknown']
    assert found['familiarity'] == pytest.approx(expected['familiarity'], abs=0.011)


def served_of(run, exports, kind: str) -> list:
    return [run.directory, '--keep=0.5'] if kind == 'run' else [exports / kind]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['run', 'openvino', 'savedmodel'])
def test_the_answers_are_those_of_predict_for_every_kind_of_file(run, exports, kind, tmp_path, capsys):
    expected = predicted(run, tmp_path, capsys)
    assert {line.get('unknown') for line in expected.values()} == {True, False, None}
    with started.server(*served_of(run, exports, kind), program=TOY) as (port, _):
        for name, data in started.pictures().items():
            status, found = started.asked(port, '/predict', data)
            assert_same(found, expected[name])
            assert status == (422 if 'error' in expected[name] else 200)
        status, found = started.asked(port, '/predict?top_k=1&explain=1', started.pictures()['plain.jpg'])
        assert len(found['answers']) == 1 and found['where']
        scheme, _, data = found['explanation'].partition(',')
        assert scheme == 'data:image/jpeg;base64' and Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 320)
        other = started.asked(port, '/predict?explain=second', started.pictures()['plain.jpg'])[1]
        assert other['explanation'] != found['explanation']


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='asks Linux for the memory of a process')
def test_an_export_of_openvino_starts_at_once_without_tensorflow_and_in_little_memory(exports):
    with started.server(exports / 'openvino', program=WITHOUT_TENSORFLOW) as (port, process):
        stat = Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
        assert sum(map(int, stat[11:13])) / os.sysconf('SC_CLK_TCK') < 3  # Of processor: TensorFlow takes more.
        for data in started.pictures().values():
            started.asked(port, '/predict?explain=1', data)
        assert started.memory(process) < 200 << 20
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == 'False False\n'


@pytest.mark.slow
def test_programs_ask_as_they_ask_tensorflow_serving_and_kserve(exports):
    with started.server(exports / 'openvino') as (port, _):
        data = started.pictures()['plain.jpg']
        text, expected = base64.b64encode(data).decode(), started.asked(port, '/predict', data)[1]
        labels = [each['label'] for each in expected['answers']]
        probabilities = [each['probability'] for each in expected['answers']]
        row = {'labels': labels, 'probabilities': probabilities, 'familiarity': expected['familiarity'],
               'unknown': expected['unknown']}

        def posted(path: str, content: dict) -> tuple[int, dict]:
            return started.asked(port, path, json.dumps(content).encode(), 'application/json; charset=utf-8')

        path = '/v1/models/openvino:predict'
        for instance in ({'b64': text}, {'files': {'b64': text}}):
            assert posted(path, {'signature_name': 'serving_default', 'instances': [instance] * 2}) == (
                200, {'predictions': [row] * 2})
        assert posted(path, {'inputs': {'files': [{'b64': text}]}}) == (
            200, {'outputs': {name: [value] for name, value in row.items()}})
        status, found = posted(path, {'instances': [{'b64': text}, {'b64': base64.b64encode(b'no').decode()}]})
        assert (status, found['error']) == (422, 'not_an_image') and found['detail'].startswith('Picture 1')
        assert started.asked(port, '/v1/models/openvino')[1]['model_version_status'][0]['state'] == 'AVAILABLE'

        path = '/v2/models/openvino'
        asked_for = {'name': 'files', 'shape': [2], 'datatype': 'BYTES', 'data': [text, text]}
        status, found = posted(f'{path}/infer', {'id': 'one', 'inputs': [asked_for]})
        assert (status, found['id'], found['model_name'], found['model_version']) == (200, 'one', 'openvino', '3')
        outputs = {output['name']: output for output in found['outputs']}
        told = {output['name']: output['datatype'] for output in started.asked(port, path)[1]['outputs']}
        assert {name: output['datatype'] for name, output in outputs.items()} == told
        assert outputs['labels'] == {'name': 'labels', 'datatype': 'BYTES', 'shape': [2, 3], 'data': labels * 2}
        assert outputs['unknown']['data'] == [row['unknown']] * 2 and outputs['unknown']['shape'] == [2]
        status, found = posted(f'{path}/infer', {'inputs': [asked_for], 'outputs': [{'name': 'probabilities'}]})
        assert [output['data'] for output in found['outputs']] == [probabilities * 2]
        assert posted(f'{path}/infer', {'inputs': [asked_for], 'outputs': [{'name': 'colour'}]})[0] == 400
        assert started.asked(port, '/v2/health/ready') == (200, {'ready': True})
        assert started.asked(port, f'{path}/ready') == (200, {'name': 'openvino', 'ready': True})


# How it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_soon_whoever_is_connected(exports, number, code):
    with started.server(exports / 'openvino', program=WITHOUT_TENSORFLOW.replace('main(sys', 'code = main(sys') +
                 'sys.exit(code)') as (port, process):
        idle = [socket.create_connection(('127.0.0.1', port)) for _ in range(3)]
        idle[1].sendall(b'POST /predict HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 90\r\n\r\nfew' % port)
        started.asked(port, '/predict', started.pictures()['plain.jpg'])
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == code
        assert time.monotonic() - began < 3  # One second on a machine that does nothing else.
        told = process.stderr.read()
        assert told.endswith('stopped\n') and 'Traceback' not in told
        for each in idle:
            each.close()


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(run, capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert serve.main([str(run.directory), f'--port={port}']) == 1
    assert capsys.readouterr().err == (f'error: port {port} is taken by another program: name another one with --port, '
                                       'or 0 for any that is free.\n')


@pytest.mark.parametrize('flags, told, code', [
    ((), 'one run, project or export is expected, and 0 were named', 2),
    (('nowhere',), 'nowhere is no run, project or export: it has neither recipe.json nor model.json', 1),
    (('RUN', '--host=0.0.0.0'), 'lets everyone who reaches this machine ask', 2),
    (('RUN', '--host=192.0.2.7', '--token=short'), '--token must have at least 8 characters', 2),
    (('RUN', '--host=0.0.0.0', '--token=long-enough'), '--allowed_hosts=', 2),
    (('RUN', '--host=photos.example'), 'is no address', 2),
    (('RUN', '--host=192.0.2.7', '--token=long-enough'), 'cannot be listened at', 1),
    (('RUN', '--allowed_hosts=http://x/'), '--allowed_hosts=http://x/ is not understood', 2),
    (('RUN', '--checkpoint=new'), '--checkpoint=new is not understood', 2),
])
def test_a_command_line_that_cannot_be_carried_out_says_why(run, flags, told, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert serve.main([str(run.directory) if flag == 'RUN' else flag for flag in flags]) == code
    said = capsys.readouterr().err
    assert told in said and said.count('\n') == 1


def test_packages_that_are_missing_are_told(monkeypatch, capsys):
    monkeypatch.setattr(serve.importlib.util, 'find_spec', lambda name: None)
    assert serve.main(['run']) == 2
    assert 'pip install starlette uvicorn' in capsys.readouterr().err


def test_what_is_printed_can_be_opened(run, monkeypatch, capsys):
    opened = serve.served.Served('toy', '1', 'a toy', ['a', 'b'], True, True, {}, None, None)
    flags = serve.FLAGS.parse(['x', '--host=0.0.0.0', '--token=a-long-word', '--allowed_hosts=photos.example'])
    serve._tell(opened, flags, serve._with_port(serve._names(flags)[0], 8000))
    told = capsys.readouterr()
    assert told.out == 'http://photos.example:8000/#token=a-long-word\n' and 'no encryption' in told.err
    assert serve._with_port('[::1]', 80) == '[::1]' and serve._with_port('[::1]', 81) == '[::1]:81'


# What an export may be --------------------------------------------------------------------------------------------


def spoilt(exports: Path, tmp_path: Path, **facts) -> Path:
    directory = tmp_path / 'spoilt'
    subprocess.run(['cp', '-r', exports / 'openvino', directory], check=True)
    path = directory / 'model.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return directory


@pytest.mark.slow
@pytest.mark.parametrize('facts, told', [
    ({'labels': ['a', 'b']}, '2 labels for 3 outputs'), ({'labels': 'abc'}, 'its values make no sense'),
    ({'image_size': -1}, 'its values make no sense'), ({'treatment': {'run': 'rm'}}, 'is not as `finetune export`'),
    ({'formats': {'onnx': {}}}, 'has only onnx, and openvino or savedmodel is served'),
    ({'formats': {'openvino': {}}}, 'no files of openvino'),
    ({'formats': {'openvino': {'files': {'../../x': {}}}}}, 'is not there as it was written'),
])
def test_a_model_json_that_was_changed_is_told(exports, tmp_path, facts, told, capsys):
    assert serve.main([str(spoilt(exports, tmp_path, **facts)), '--port=0']) == 1
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_bit_that_turned_in_an_export_is_noticed(exports, tmp_path, capsys):
    directory = spoilt(exports, tmp_path)
    path = directory / 'openvino/model.bin'
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert serve.main([str(directory), '--port=0']) == 1
    assert 'was changed or damaged after it was written' in capsys.readouterr().err


def test_flags_of_a_run_are_no_flags_of_an_export(tmp_path, capsys):
    (tmp_path / 'model.json').write_text('{}')
    assert serve.main([str(tmp_path), '--keep=0.5']) == 2
    assert '--keep is for runs' in capsys.readouterr().err
