"""The head of an export's README, as model hubs read it."""

import importlib.util
import json
from types import SimpleNamespace

import pytest

from finetune import export
from finetune.checking import judgement
from finetune.exporting import front_matter
from finetune.records import dataset
from tests import toy_records, toy_run
from tests.toy_export import exported, made

VERDICT = SimpleNamespace(pictures=300, right=279)
FACTS = {'formats': {'openvino': {}, 'litert': {}}, 'license': None, 'verified_with': 'validation pictures of data: #x',
         'run': {'name': "tricky: 'name' \n # ü", 'network': 'mobilenet_v2'}}


def read(text: str) -> dict:
    first, *lines, last = text.splitlines()
    assert first == last == '---'
    return {key: json.loads(value) for key, value in (line.split(': ', 1) for line in lines)}


def test_it_says_how_good_a_format_is_with_its_interval():
    found = read(front_matter.of(FACTS, {'openvino': VERDICT}))
    assert (found['pipeline_tag'], found['library_name']) == ('image-classification', 'openvino')
    assert 'mobilenet_v2' in found['tags'] and 'litert' in found['tags']
    result, = found['model-index'][0]['results']
    assert result['metrics'][0]['value'] == 0.93 and '0.895 to 0.954' in result['metrics'][0]['name']


def test_a_licence_that_is_not_known_is_left_out():
    assert 'license' not in read(front_matter.of(FACTS, {}))
    assert read(front_matter.of(FACTS | {'license': 'apache-2.0'}, {}))['license'] == 'apache-2.0'


@pytest.mark.parametrize('model, pretrained, expected', [
    ('mobilenet_v2', 'sample', 'apache-2.0'), ('efficientnet_lite0', 'imagenet', 'apache-2.0'),
    ('resnet50', 'imagenet', None), ('mobilenet_v2', 'weights.h5', None)])
def test_only_licences_that_are_known_are_told(model, pretrained, expected):
    assert front_matter.license_of(SimpleNamespace(model=model, pretrained=pretrained)) == expected


def test_what_is_not_measured_is_not_claimed():
    assert 'metrics' not in read(front_matter.of(FACTS, {'openvino': SimpleNamespace(pictures=50, right=None)}))


@pytest.mark.skipif(importlib.util.find_spec('yaml') is None, reason='needs yaml')
def test_a_reader_of_yaml_reads_the_same():
    import yaml
    text = front_matter.of(FACTS, {'openvino': VERDICT})
    assert yaml.safe_load(text.removeprefix('---').removesuffix('---')) == read(text)


@pytest.mark.slow
def test_a_card_tells_of_training_pictures_and_of_what_a_check_found(tmp_path):
    data = toy_records.write(tmp_path / 'records', labels=toy_run.LABELS)
    findings = tmp_path / 'records' / judgement.DIRECTORY / 'findings.json'
    findings.parent.mkdir()
    fingerprint = dataset.open_records(data).fingerprint
    findings.write_text(json.dumps({'data_fingerprint': fingerprint, 'figures': {'label_errors': 3, 'leaks': 0}}))
    directory = exported(made(tmp_path / 'run'), tmp_path, f'--data_dir={data}')
    readme = (directory / 'README.md').read_text()
    assert readme.startswith('---\npipeline_tag: "image-classification"\n')
    assert '9 blue, 9 green, 9 red pictures' in readme and 'found in them: 3 label errors.' in readme
    assert json.loads((directory / 'model.json').read_text())['findings'] == {'label_errors': 3, 'leaks': 0}
    findings.write_text(json.dumps({'data_fingerprint': 'of others', 'figures': {'label_errors': 3}}))
    assert export._findings(dataset.open_records(data)) is None
