"""Exports that compute with fewer bits than the run: what they must still answer, and who else reads them."""

import dataclasses
import importlib.util
import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from finetune import export
from finetune.exporting import litert, mediapipe, network, verification
from finetune.exporting.verification import Answers, Pictures
from finetune.models import classifier
from finetune.records import dataset
from tests import toy, toy_records, toy_run
from tests.toy_export import exported, made, read_by_others

NEEDS_LITERT = pytest.mark.skipif(importlib.util.find_spec('ai_edge_litert') is None, reason='needs ai_edge_litert')
NEEDS_OPENVINO = pytest.mark.skipif(importlib.util.find_spec('openvino') is None, reason='needs openvino')


@pytest.fixture
def run(tmp_path):
    return made(tmp_path / 'run')


@pytest.mark.parametrize('flags, expected', [
    (('--precision=float16',), '--precision=float16 is not for savedmodel'),
    (('--precision=float16', '--format=litert,onnx'), '--precision=float16 is not for onnx'),
    (('--precision=int8', '--format=openvino'), 'int8: litert'),
    (('--precision=float64',), 'float32'),
    (('--precision=int8', '--format=litert'), 'needs the training pictures'),
])
def test_what_does_not_go_together_is_told_with_what_does(run, tmp_path, flags, expected, capsys):
    if flags == ('--precision=int8', '--format=litert'):
        pytest.importorskip('ai_edge_litert')
    assert export.main([str(run.directory), f'--output={tmp_path}/export', *flags]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'export').exists()


@pytest.mark.slow
@pytest.mark.parametrize('format', [pytest.param('litert', marks=NEEDS_LITERT),
                                    pytest.param('openvino', marks=NEEDS_OPENVINO)])
def test_float16_answers_as_the_run_does_from_fewer_bytes(run, tmp_path, format):
    sizes = []
    for precision in ('float32', 'float16'):
        (tmp_path / precision).mkdir()
        directory = exported(run, tmp_path / precision, f'--format={format}', f'--precision={precision}')
        facts = json.loads((directory / 'model.json').read_text())
        assert facts['precision'] == precision
        assert facts['formats'][format]['verification']['same_labels'] == 9
        sizes.append(sum(file['bytes'] for name, file in facts['formats'][format]['files'].items()
                         if name.endswith(('.bin', '.tflite'))))
    assert sizes[1] < sizes[0]


@pytest.mark.slow
@NEEDS_LITERT
def test_int8_takes_and_gives_bytes_and_its_code_reads_them(run, tmp_path):
    data = toy_records.write(tmp_path / 'records', labels=toy_run.LABELS)
    directory = exported(run, tmp_path, '--format=litert', '--precision=int8', f'--data_dir={data}', '--max_loss=1')
    told = json.loads((directory / 'model.json').read_text())['formats']['litert']
    assert list(told['outputs']) == ['probabilities'] and told['outputs']['probabilities'].startswith('uint8')
    assert told['inputs']['image'].startswith('uint8')
    assert told['verification']['largest_difference_of_a_logit'] is None
    (tmp_path / 'one.jpg').write_bytes(toy.encoded(toy.picture(1, (90, 60))))
    (_, label, likely, is_unknown), = read_by_others(directory, 'litert', tmp_path / 'one.jpg')
    assert label in toy_run.LABELS[1:] and 1 / 3 <= float(likely) <= 1 and not is_unknown
    taken, = interpreter(directory / 'litert/model.tflite').get_input_details()
    assert taken['dtype'] == np.uint8
    assert taken['quantization'] == (pytest.approx(1 / 255), 0)  # The bytes of a picture.


def test_outputs_that_are_switched_off_take_no_room_from_the_others(run):
    """In 8 bits, a logit of -100 would leave steps of half a logit."""
    loaded = run.load(in_float32=True)
    classifier.switch_off(loaded.model.get_layer('head'), [0])  # As training does.
    exported_ = network.of(run, loaded, 0.95)
    views = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    expected = network.answers(exported_, views)['probabilities']
    np.testing.assert_allclose(network.probabilities(exported_, views)['probabilities'], expected, atol=1e-5)


# What is allowed --------------------------------------------------------------------------------------------------


def verdict(precision: str, right: int, same: int, max_loss: float = 0.02) -> verification.Verdict:
    """Of 100 pictures: the run has all of them right, the export so many; so many have the run's label."""
    network_ = SimpleNamespace(names={1: 'a', 2: 'b'}, can_abstain=False, shows_evidence=False)
    labels = np.ones(100, int)
    labels[right:same] = 2  # Where the run is wrong, and the export with it.
    ours = np.eye(2, dtype=np.float32)[labels - 1]
    theirs = ours.copy()
    theirs[same:] = theirs[same:, ::-1]
    pictures = Pictures([b''] * 100, np.ones(100, int), 'pictures')
    of_run, of_export = (Answers(logits.argmax(axis=1), logits, None) for logits in (ours, theirs))
    return verification.compare(network_, pictures, of_run, of_export, 1.0, precision, max_loss)


def test_float16_may_answer_one_in_a_hundred_otherwise():
    assert not verdict('float16', right=99, same=99).missed
    assert '2 of 100 pictures get another label' in verdict('float16', right=98, same=98).missed[0]


def test_int8_may_lose_as_much_as_was_said():
    assert not verdict('int8', right=98, same=98).missed
    assert 'precision@1 is 0.0300 below' in verdict('int8', right=97, same=97).missed[0]
    assert not verdict('int8', right=95, same=95, max_loss=0.05).missed


def test_float32_may_answer_none_otherwise():
    assert 'another label' in verdict('float32', right=99, same=99).missed[1]
    assert not verdict('float32', right=100, same=100).missed


@pytest.mark.slow
@NEEDS_LITERT
def test_int8_that_loses_too_much_is_not_published(run, tmp_path, monkeypatch, capsys):
    data = toy_records.write(tmp_path / 'records', labels=toy_run.LABELS)
    original = verification.of_the_run

    def better(network_, pictures, path):
        labels = pictures.labels - 1
        return dataclasses.replace(original(network_, pictures, path), best=labels)

    monkeypatch.setattr(verification, 'of_the_run', better)
    assert export.main([str(run.directory), f'--output={tmp_path}/export', '--format=litert', '--precision=int8',
                        f'--data_dir={data}']) == 3
    assert '--max_loss' in capsys.readouterr().err
    assert not (tmp_path / 'export').exists()


def test_typical_views_are_of_all_classes_alike(tmp_path):
    data = toy_run.write_records(tmp_path / 'records', train=[0, 40, 3, 9])
    alike = verification.typical_views(data, 16, 1.0, most=12)
    again = verification.typical_views(dataset.open_records(tmp_path / 'records'), 16, 1.0, most=12)
    np.testing.assert_array_equal(alike, again)
    every = {verification.viewer(16, 1.0)([toy_run.picture(place)]).numpy().tobytes(): label
             for place, label in enumerate([1] * 40 + [2] * 3 + [3] * 9)}
    labels = [every[view[None].tobytes()] for view in alike]
    assert len(labels) == 12 and labels.count(2) == 3 and labels.count(1) in (4, 5) and labels.count(3) in (4, 5)


# MediaPipe --------------------------------------------------------------------------------------------------------


def interpreter(file):
    found = importlib.import_module('ai_edge_litert.interpreter').Interpreter(str(file))
    found.allocate_tensors()
    return found


class Table:
    """A table of a flatbuffer, by the numbers of its fields."""

    def __init__(self, data: bytes, place: int | None = None):
        import flatbuffers
        from flatbuffers import encode, packer
        self._data, self._kinds = data, flatbuffers.number_types
        start = encode.Get(packer.uoffset, data, 0) if place is None else place
        self._table = flatbuffers.table.Table(data, start)

    def _at(self, field: int) -> int:
        offset = self._table.Offset(4 + 2 * field)
        assert offset, f'no field {field}'
        return offset + self._table.Pos

    def table(self, field: int) -> 'Table':
        return Table(self._data, self._table.Indirect(self._at(field)))

    def tables(self, field: int) -> list['Table']:
        start = self._table.Vector(self._at(field) - self._table.Pos)
        count = self._table.VectorLen(self._at(field) - self._table.Pos)
        return [Table(self._data, self._table.Indirect(start + 4 * number)) for number in range(count)]

    def text(self, field: int) -> str:
        return self._table.String(self._at(field)).decode()

    def byte(self, field: int) -> int:
        return self._table.Get(self._kinds.Uint8Flags, self._at(field))

    def floats(self, field: int) -> list[float]:
        return self._table.GetVectorAsNumpy(self._kinds.Float32Flags, self._at(field) - self._table.Pos).tolist()

    def has(self, field: int) -> bool:
        return bool(self._table.Offset(4 + 2 * field))


def metadata_in(file) -> Table:
    content = mediapipe.schema.ModelT.InitFromPackedBuf(file.read_bytes())
    entry, = (entry for entry in content.metadata if entry.name == b'TFLITE_METADATA')
    data = bytes(content.buffers[entry.buffer].data)
    assert data[4:8] == b'M001'
    return Table(data)


@pytest.mark.slow
@NEEDS_LITERT
def test_a_file_tells_mediapipe_of_its_pixels_and_labels(run, tmp_path):
    directory = exported(run, tmp_path, '--format=litert') / 'litert'
    file = directory / 'mediapipe.tflite'
    graph, = metadata_in(file).tables(3)
    (taken,), (given,) = graph.tables(2), graph.tables(3)
    assert taken.table(3).byte(0) == 2 and taken.table(3).table(1).byte(0) == 1  # A picture, in RGB.
    normalisation, = taken.tables(4)
    assert normalisation.byte(0) == 1 and normalisation.table(1).floats(0) == [0]
    assert normalisation.table(1).floats(1) == [255]
    labels, = given.tables(6)
    assert (labels.text(0), labels.byte(2)) == ('labels.txt', 2)
    assert zipfile.ZipFile(file).read('labels.txt') == b'blue\ngreen\nred\n'
    whole, cut = interpreter(directory / 'model.tflite'), interpreter(file)
    output, = cut.get_output_details()
    assert list(output['shape']) == [1, 3]
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    answered = [each.get_signature_runner()(image=image)['probabilities'] for each in (whole, cut)]
    np.testing.assert_array_equal(*answered)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('mediapipe') is None, reason='needs mediapipe')
@pytest.mark.parametrize('precision, file', [('float32', 'mediapipe'), ('float16', 'mediapipe'), ('int8', 'model')])
def test_mediapipe_itself_opens_it(run, tmp_path, precision, file):
    from mediapipe import Image as MediaPipeImage
    from mediapipe import ImageFormat
    from mediapipe.tasks.python import vision
    data = toy_records.write(tmp_path / 'records', labels=toy_run.LABELS)
    directory = exported(run, tmp_path, '--format=litert', f'--precision={precision}', f'--data_dir={data}',
                         '--max_loss=1')
    path = directory / f'litert/{file}.tflite'
    image = np.asarray(Image.open(io.BytesIO(toy_run.picture(1, 32, 32))))
    with vision.ImageClassifier.create_from_model_path(str(path)) as judge:
        found = judge.classify(MediaPipeImage(image_format=ImageFormat.SRGB, data=image))
    answers = {each.category_name: each.score for each in found.classifications[0].categories}
    assert set(answers) == {'blue', 'green', 'red'}
    if precision == 'float32':
        expected = interpreter(path).get_signature_runner()(image=image[None] / np.float32(255))['probabilities'][0]
        np.testing.assert_allclose([answers[name] for name in ('blue', 'green', 'red')], expected, atol=1e-3)


def test_bytes_from_0_to_255_stand_for_0_to_1_whatever_was_seen():
    views = np.full((2, 4, 4, 3), 0.5, np.float32)
    scaled_by = litert._from_black_to_white(views)
    assert (scaled_by.min(), scaled_by.max(), views.min()) == (0, 1, 0.5)
