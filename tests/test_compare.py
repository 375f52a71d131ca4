"""`finetune compare`, on runs of which a test says which pictures they get right."""

import json
import shutil

import numpy as np
import pytest

from finetune import compare, eval
from finetune.evaluation import answers, comparison, inference
from finetune.runs.history import MetricsFile
from tests import toy_records, toy_run

PICTURES = 60


@pytest.fixture
def data(tmp_path):
    return toy_run.write_records(tmp_path / 'data', train=[0, 2, 2, 2], validation=[0, 20, 20, 20])


@pytest.fixture
def runs(tmp_path):
    """Three runs with one checkpoint each, by their names."""
    made = {}
    for seed, name in enumerate(('head', 'last_blocks', 'all')):
        made[name] = toy_run.start_run(tmp_path / name)
        toy_run.save_checkpoint(made[name], 10, seed)
    return made


@pytest.fixture
def right(monkeypatch):
    """Answers without a network: fill it with the pictures that each run, by its name, gets wrong."""
    wrong = {}
    labels = np.repeat([1, 2, 3], PICTURES // 3).astype(np.int32)

    def answer(run, *_):
        answered = labels.copy()
        answered[wrong[run.directory.name]] = 0
        filenames = [b'%d.jpg' % place for place in range(PICTURES)]
        return inference.Outputs(labels, np.eye(4, dtype=np.float32)[answered], filenames)

    monkeypatch.setattr(answers, 'answer', answer)
    return wrong


def told(data, *flags, capsys=None) -> str:
    """What a comparison prints on stdout."""
    assert compare.main([f'--data_dir={data.directory}', *map(str, flags)]) == 0
    return capsys.readouterr().out


def directories(runs, *names) -> list[str]:
    return [str(runs[name].directory) for name in names]


# What it says ---------------------------------------------------------------------------------------------


def test_it_says_in_one_sentence_which_is_better_by_how_much_and_on_what_pictures(data, runs, right, capsys):
    right.update(head=range(20), last_blocks=range(18, 23))
    out = told(data, *directories(runs, 'head', 'last_blocks'), capsys=capsys)
    lines = out.splitlines()
    assert lines[0].split()[:5] == ['run', 'network', 'size', 'step', 'right']
    assert lines[1].split()[:6] == ['head', 'toy', '32', '10', '40', '60']
    assert lines[4] == ('last_blocks is better than head by 25.0 points (11.1 to 38.8); 18 pictures only it gets '
                        'right, 3 only head does (exact McNemar test: p = 0.001).')
    assert len(lines) == 5


def test_where_it_cannot_tell_it_says_how_many_pictures_would(data, runs, right, capsys):
    right.update(head=range(10), last_blocks=range(5, 13))
    out = told(data, *directories(runs, 'head', 'last_blocks'), capsys=capsys)
    assert 'last_blocks and head cannot be told apart on 60 pictures: last_blocks is ahead by 3.3 points (' in out
    assert '5 pictures only it gets right, 3 only head does (exact McNemar test: p = 0.727).' in out
    assert out.splitlines()[4].endswith(
        'If the difference is what it seems here, about 940 pictures would show it (four times in five).')


def test_an_interval_that_the_exact_test_does_not_follow_is_explained(data, runs, right, capsys):
    right.update(head=range(5), last_blocks=[])
    out = told(data, *directories(runs, 'head', 'last_blocks'), capsys=capsys)
    assert 'cannot be told apart' in out and 'p = 0.062' in out and 'The interval leaves 0 out' in out


def test_equally_good_ones_are_not_called_better(data, runs, right, capsys):
    right.update(head=range(4), last_blocks=range(4, 8), all=range(4))
    out = told(data, *directories(runs, 'head', 'last_blocks'), capsys=capsys)
    assert 'head and last_blocks have equally many right' in out and 'better' not in out
    out = told(data, *directories(runs, 'head', 'all'), capsys=capsys)
    assert 'head and all are right about the very same pictures.' in out


def test_of_many_each_is_compared_with_the_best_and_luck_is_reckoned_with(data, runs, right, capsys):
    right.update(head=range(8), last_blocks=[], all=range(10, 13))
    flags = directories(runs, 'head', 'last_blocks', 'all')
    out = told(data, *flags, capsys=capsys)
    assert out.count('last_blocks is better than head') == out.count('last_blocks and all cannot be told apart') == 1
    assert 'p is corrected for all pairs (Holm)' in out
    found = json.loads(told(data, '--json', *flags, capsys=capsys))
    assert [row['second'] for row in found['comparisons']] == ['all', 'head']
    assert [row['mcnemar_p'] for row in found['comparisons']] == [2 / 2**3, 2 / 2**8]
    assert [row['corrected_p'] for row in found['comparisons']] == [
        pytest.approx(2 * comparison.mcnemar(8, 3)), 3 * 2 / 2**8]


def test_json_is_one_line_with_all_that_the_sentences_say(data, runs, right, capsys):
    right.update(head=range(20), last_blocks=range(18, 23))
    out = told(data, '--json', *directories(runs, 'head', 'last_blocks'), capsys=capsys)
    found = json.loads(out)
    assert out.count('\n') == 1 and found['data_fingerprint'] == data.fingerprint and found['records'] == PICTURES
    assert [(row['name'], row['right'], row['step']) for row in found['runs']] == [
        ('head', 40, 10), ('last_blocks', 55, 10)]
    row, = found['comparisons']
    assert (row['first'], row['only_first'], row['only_second'], row['told_apart']) == ('last_blocks', 18, 3, True)
    assert row['difference'] == pytest.approx(0.25) and row['interval_95'] == pytest.approx([0.1108, 0.3882], abs=1e-4)


def measured(run, data) -> None:
    """As if the last three steps had been validated on these records, and step 10 had won."""
    run.keep_as_best(10)
    run.change(run.recipe, run.records | {'fingerprint': data.fingerprint}, run.kernels)
    for step in (8, 9, 10):
        MetricsFile(run.directory / 'metrics.csv').append({'step': step, 'validation_precision_at_1': '0.5'})


def test_a_checkpoint_that_these_pictures_chose_is_told_of(data, runs, right, capsys):
    measured(runs['head'], data)
    right.update(head=[0], last_blocks=[1])
    both = directories(runs, 'head', 'last_blocks')
    out = told(data, *both, capsys=capsys)
    assert 'head: this epoch was chosen on these pictures, as the best of 3' in out
    assert 'the runs were trained on different records' in out
    assert 'was chosen' not in told(data, '--checkpoint=last', *both, capsys=capsys)


def test_two_checkpoints_of_one_run_can_be_compared(data, runs, right, capsys):
    toy_run.save_checkpoint(runs['head'], 20)
    right.update(head=[0])
    out = told(data, *directories(runs, 'head', 'head'), '--checkpoint=10,last', capsys=capsys)
    assert 'head at step 10 and head at step 20 are right about the very same pictures' in out


def test_runs_of_one_name_are_called_by_their_paths(tmp_path, data, runs, right, capsys):
    shutil.copytree(runs['head'].directory, tmp_path / 'other' / 'head')
    right.update(head=[0])
    out = told(data, runs['head'].directory, tmp_path / 'other/head', capsys=capsys)
    assert f'{runs["head"].directory} and {tmp_path}/other/head are right about' in out


def test_a_name_is_escaped_once_wherever_it_stands(tmp_path, data, runs, right, capsys):
    odd = tmp_path / 'a\\b\n'
    shutil.copytree(runs['all'].directory, odd)
    right.update({'head': [0], odd.name: [1, 2]})
    out = told(data, runs['head'].directory, odd, capsys=capsys)
    assert out.count(r'a\\b\n') == 3 and r'\\\\' not in out and len(out.splitlines()) == 5  # In the table, and twice.


def test_records_with_a_test_set_are_pointed_to(tmp_path, runs, right, capsys):
    data = toy_run.write_records(tmp_path / 'three', validation=[0, 20, 20, 20], test=[0, 1, 1, 1])
    measured(runs['head'], data)
    right.update(head=[0], last_blocks=[1])
    assert '--subset=test has the number without' in told(
        data, *directories(runs, 'head', 'last_blocks'), capsys=capsys)


# In scripts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('candidate_wrong, margin, exit_code', [
    (range(10), '0.1', 0),  # Interval -0.06 to 0.06.
    (range(10), '0.02', 3),  # No worse here, but 60 pictures do not show it.
    (range(20), '0.1', 3),
    (range(0), '0', 0),
])
def test_a_candidate_passes_only_where_it_is_shown_to_lose_no_more_than_the_margin(
    data, runs, right, capsys, candidate_wrong, margin, exit_code,
):
    right.update(head=candidate_wrong, last_blocks=range(10))
    flags = [f'--data_dir={data.directory}', '--require=not_worse', f'--margin={margin}']
    assert compare.main([*flags, *directories(runs, 'head', 'last_blocks')]) == exit_code
    told = capsys.readouterr()
    assert ('error: --require=not_worse is not met: head may be' in told.err) == (exit_code == 3)
    assert 'precision@1' in told.out


@pytest.mark.parametrize('flags, expected', [
    (['--data_dir=d'], 'no runs were named'),
    (['--data_dir=d', 'a'], 'one run was named'),
    (['a', 'b'], '--data_dir is missing'),
    (['a', 'b', '--data_dir=d', '--checkpoint=newest'], 'expected best, last, or a step'),
    (['a', 'b', '--data_dir=d', '--checkpoint=best,last,1'], '3 checkpoints for 2 runs'),
    (['a', 'b', '--data_dir=d', '--require=better'], 'expected not_worse'),
    (['a', 'b', 'c', '--data_dir=d', '--require=not_worse'], 'but 3 were named'),
    (['a', 'b', '--data_dir=d', '--margin=0.1'], 'add that'),
    (['a', 'b', '--data_dir=d', '--margin=2'], '--margin'),
])
def test_a_command_line_that_cannot_be_carried_out_ends_with_2_and_says_why(flags, expected, capsys):
    assert compare.main(flags) == 2
    assert expected in capsys.readouterr().err


# What cannot be compared ------------------------------------------------------------------------------------


def refused(data, capsys, *flags) -> str:
    assert compare.main([f'--data_dir={data.directory}', *map(str, flags)]) in (1, 2)
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count('\n') == 1
    return captured.err


@pytest.fixture
def nobody_answers(monkeypatch):
    """What is wrong is said before the work, not after it."""
    monkeypatch.setattr(answers, 'answer', pytest.fail)


def test_one_run_named_twice_is_no_comparison(tmp_path, data, runs, nobody_answers, capsys):
    (tmp_path / 'link').symlink_to(runs['head'].directory)
    assert 'is named twice' in refused(data, capsys, runs['head'].directory, tmp_path / 'link')


@pytest.mark.parametrize('labels, difference', [
    (('background', 'blue', 'red', 'green'), "label 2 is 'green' in"),
    (('background', 'blue', 'green'), "label 3 is 'red' in"),
])
def test_runs_of_other_classes_are_refused(tmp_path, data, runs, nobody_answers, capsys, labels, difference):
    other = toy_run.start_run(tmp_path / 'other', labels, (0,) + (9,) * (len(labels) - 1))
    error = refused(data, capsys, runs['head'].directory, other.directory)
    assert difference in error and 'Only runs with the same classes can be compared.' in error


def test_records_of_other_classes_are_refused(tmp_path, runs, nobody_answers, capsys):
    other = toy_run.write_records(tmp_path / 'others', ('background', 'blue', 'red'), validation=[0, 2, 2])
    assert '--labels_file=' in refused(other, capsys, *directories(runs, 'head', 'last_blocks'))


def test_what_is_no_run_or_no_records_or_has_no_checkpoint_is_named(tmp_path, data, runs, nobody_answers, capsys):
    head = runs['head'].directory
    assert f'{tmp_path}/nowhere is not a run' in refused(data, capsys, head, tmp_path / 'nowhere')
    assert 'has no test pictures' in refused(data, capsys, *directories(runs, 'head', 'all'), '--subset=test')
    empty = toy_run.start_run(tmp_path / 'empty')
    assert 'no checkpoint file found in' in refused(data, capsys, head, empty.directory)


# Answers that were kept -------------------------------------------------------------------------------------


def evaluate(run, data, *flags) -> None:
    assert eval.main([f'--checkpoint_dir={run.directory}', f'--data_dir={data.directory}', '--run_once', *flags]) == 0


@pytest.fixture
def evaluated(runs, data, capsys):
    """Two runs, really evaluated."""
    for name in ('head', 'last_blocks'):
        evaluate(runs[name], data)
    capsys.readouterr()
    return directories(runs, 'head', 'last_blocks')


def test_what_eval_kept_is_not_computed_again_and_says_the_same(data, evaluated, runs, monkeypatch, capsys):
    with monkeypatch.context() as nobody:
        nobody.setattr(answers, 'load', pytest.fail)
        kept = json.loads(told(data, '--json', *evaluated, capsys=capsys))
    paths = [runs[name].directory / 'eval/validation/answers.npz' for name in ('head', 'last_blocks')]
    assert [row.pop('kept') for row in kept['runs']] == list(map(str, paths))
    for path in paths:
        path.unlink()
    computed = json.loads(told(data, '--json', *evaluated, capsys=capsys))
    assert [row.pop('kept') for row in computed['runs']] == [None, None]
    assert computed == kept


def test_what_eval_keeps_is_what_the_network_says_of_every_file(data, evaluated, runs):
    with np.load(runs['head'].directory / 'eval/validation/answers.npz') as file:
        assert file['label'].tolist().count(2) == 20 and file['logits'].dtype == np.float32
        assert file['filename'][0] == b'blue/0.jpg' and json.loads(str(file['of']))['records'] == data.fingerprint
        metrics = json.loads((runs['head'].directory / 'eval/validation/metrics.json').read_text())
        right = np.mean(file['logits'].argmax(axis=1) == file['label'])
        assert right == metrics['figures']['precision@1']


@pytest.mark.slow
@pytest.mark.parametrize('change', [
    'other weights', 'other records', 'no averages', 'fewer pictures', 'another view', 'damaged', 'no archive'])
def test_answers_of_anything_else_are_not_taken(tmp_path, data, evaluated, runs, capsys, change):
    run = runs['head']
    path = run.directory / 'eval/validation/answers.npz'
    if change == 'other weights':
        toy_run.save_checkpoint(run, 10, seed=7)
    elif change == 'other records':
        data = toy_run.write_records(tmp_path / 'others', validation=[0, 20, 21, 19])
    elif change == 'no averages':
        evaluate(run, data, '--noaverages')
    elif change == 'fewer pictures':
        evaluate(run, data, '--num_examples=59')
    elif change == 'another view':
        recipe = json.loads((run.directory / 'recipe.json').read_text())
        recipe['recipe']['crop_fraction'] = 1.0
        (run.directory / 'recipe.json').write_text(json.dumps(recipe))
    elif change == 'damaged':
        path.write_bytes(path.read_bytes()[:-100])
    else:
        np.save(path.open('wb'), np.zeros(3))
    capsys.readouterr()
    found = json.loads(told(data, '--json', *evaluated, capsys=capsys))
    assert found['runs'][0]['kept'] is None


def test_networks_that_look_at_other_sizes_are_compared_too(tmp_path, data, runs, capsys):
    other = toy_run.start_run(tmp_path / 'larger', image_size=48)
    toy_run.save_checkpoint(other, 10)
    found = json.loads(told(data, '--json', '--engine=tensorflow', runs['head'].directory, other.directory,
                            capsys=capsys))
    assert [row['image_size'] for row in found['runs']] == [32, 48]


# Backbones ------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """The weights of two networks, each as a run."""
    made = {}
    for seed, network in enumerate(('toy', 'toy_normalizing')):
        run = toy_run.start_run(tmp_path / network, model=network, image_size=16)
        toy_run.save_checkpoint(run, 1, seed)
        made[network] = run.directory
    return made


@pytest.mark.slow
def test_backbones_are_ranked_by_heads_that_answer_what_they_were_not_fitted_to(tmp_path, weights, capsys):
    records = toy_records.write(tmp_path / 'records', train=40, validation=10)
    models = ','.join(f'{network}={directory}' for network, directory in weights.items())
    assert compare.main([f'--models={models}', str(records)]) == 0
    out, err = capsys.readouterr()
    assert '5-fold' in out and all(network in out for network in weights)
    assert 'finetune train' in err and '--freeze_backbone' in err
    assert compare.main([f'--models={models}', str(records), '--json']) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err.count('Using features computed before') == 2
    shares = [each['precision@1'] for each in told['backbones']]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.5
    assert {each['model'] for each in told['backbones']} == set(weights)
    assert len(told['comparisons']) == 1


def test_no_backbone_is_praised_for_pictures_that_its_head_was_fitted_to(tmp_path, weights, capsys):
    """Of noise there is nothing to learn, and 16 numbers of each of 24 pictures are enough to learn them by heart."""
    data = toy_run.write_records(tmp_path / 'noise', train=[0, 8, 8, 8])
    models = ','.join(f'{network}={directory}' for network, directory in weights.items())
    assert compare.main([f'--models={models}', str(data.directory), '--json']) == 0
    assert max(each['precision@1'] for each in json.loads(capsys.readouterr().out)['backbones']) < 0.65


@pytest.mark.parametrize(('flags', 'sentence'), [
    (['--models=toy'], 'names one network'),
    (['--models=toy,toy=x.h5'], 'names toy twice'),
    (['--models=toy,tpy'], 'Did you mean toy'),
    (['--models=toy,toy_normalizing', '--checkpoint=last'], '--checkpoint is about runs'),
    (['--models=toy,toy_normalizing', 'a', 'b'], 'one directory of records'),
])
def test_a_comparison_of_backbones_that_is_typed_wrongly_says_how(flags, sentence, capsys):
    assert compare.main(flags) == 2
    assert sentence in capsys.readouterr().err
