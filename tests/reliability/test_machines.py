"""A training of several machines, played by processes: R21, and what `eval` and a project make of TF_CONFIG."""

import json

import pytest

from finetune import eval as evaluation
from finetune import project
from tests import toy_records, toy_run
from tools.torture import failures, teams

TF_CONFIG = json.dumps({'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']}, 'task': {'type': 'worker', 'index': 1}})


@pytest.mark.slow
def test_two_machines_that_are_stopped_or_killed_go_on_to_the_same_bits(tmp_path):
    assert not failures(teams.ended_early(tmp_path, seed=3, count=2), at_least=2)


@pytest.mark.slow
def test_two_machines_end_with_the_head_and_the_figures_of_one(tmp_path):
    """Features in parts into one file, the head solved by the chief, every record validated once."""
    data = toy_records.write(tmp_path / 'records', train=30, validation=9)
    figures, features = [], []
    for count in (1, 2):
        here = tmp_path / str(count)
        flags = [f'--data_dir={data}', f'--train_dir={here}/run', f'--feature_dir={here}/features', '--model=toy',
                 '--freeze_backbone', '--views=2', '--engine=tensorflow']
        with teams.Machines(here, count, flags) as machines:
            assert machines.ended() == [0] * count, [machines.said(index) for index in range(count)]
        assert count == 1 or ': step' not in machines.said(1)
        figures.append((here / 'run/metrics.csv').read_text())
        features.append({path.parent.name: path.read_bytes() for path in here.glob('features/*/features.npy')})
    assert figures[0] == figures[1] and features[0] == features[1] and len(features[0]) == 2


def test_an_evaluation_is_of_one_machine_whatever_tf_config_says(tmp_path, monkeypatch):
    data = toy_run.write_records(tmp_path / 'records', validation=[0, 2, 2, 3])
    run = toy_run.start_run(tmp_path / 'run')
    toy_run.save_checkpoint(run, 3)
    monkeypatch.setenv('TF_CONFIG', TF_CONFIG)
    assert evaluation.main([f'--checkpoint_dir={run.directory}', f'--data_dir={data.directory}', '--run_once']) == 0
    assert json.loads((run.directory / 'eval/validation/metrics.json').read_text())['records'] == 7


def test_a_project_says_that_one_machine_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TF_CONFIG', TF_CONFIG)
    assert project.main([str(tmp_path)]) == 2
    assert 'a project is made by one' in capsys.readouterr().err
