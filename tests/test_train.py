import csv
import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from finetune import train
from finetune.console.lazy import keras, tf
from finetune.models import classifier
from finetune.records import dataset
from finetune.runs import recipe
from finetune.runs.run import Run
from finetune.runs.state import build_model
from finetune.training import journal, loop, opening
from tests import toy_records

QUICK = ('--model=toy', '--batch_size=8', '--optimizer=momentum', '--initial_learning_rate=0.05')


@pytest.fixture
def data(tmp_path):
    return toy_records.write(tmp_path / 'records')


def train_toy(data, directory, *flags) -> int:
    return train.main([f'--data_dir={data}', f'--train_dir={directory}', *QUICK, *flags])


def variables(directory, which='last') -> dict[str, np.ndarray]:
    """Every variable of a checkpoint: weights, averages, optimizer, step."""
    run = Run(directory)
    reader = tf.train.load_checkpoint(str(run.directory / f'ckpt-{run.steps()[-1]}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if 'GRAPH' not in name}


def assert_equal_variables(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, err_msg=name, **tolerance)


def test_an_auxiliary_head_trains_and_leaves_the_answers_to_the_network_it_was_in(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=2', '--aux_weight=0.4')
    auxiliary = {name: value for name, value in variables(tmp_path / 'run').items() if name.startswith('auxiliary')}
    assert len(auxiliary) == 10  # Three kernels, the bias of the logits, three of each of two batch norms.
    biases = [value for name, value in auxiliary.items() if 'logits' in name and value.ndim == 1]
    assert biases[0][0] == classifier.NEVER and biases[0][1:].any()  # Off here too; the rest has moved.
    trained = Run(tmp_path / 'run').load().model
    assert trained.count_params() == build_model(Run(tmp_path / 'run').recipe, 4).count_params()
    assert len(trained.outputs) == 1


@pytest.mark.slow
def test_one_and_two_towers_agree(data, tmp_path):
    for towers in (1, 2):
        assert train_toy(data, tmp_path / str(towers), '--max_steps=8', f'--num_gpus={towers}', '--batch_norm=still',
                         '--dropout=0', '--weight_decay=0.01', '--gradient_clip=1.0') == 0
    assert_equal_variables(variables(tmp_path / '1'), variables(tmp_path / '2'), atol=1e-6, rtol=1e-5)


def test_it_learns(data, tmp_path):
    assert train_toy(data, tmp_path / 'run', '--epochs=20') == 0
    rows = list(csv.DictReader((tmp_path / 'run/metrics.csv').open()))
    assert float(rows[-1]['loss']) < 0.6 * float(rows[0]['loss'])
    assert len(rows) == 20


@pytest.mark.parametrize(('validation', 'following'), [(7, 'eval'), (0, 'predict')])
def test_the_next_command_can_be_run(tmp_path, capsys, validation, following):
    """It was `eval` where there was nothing to evaluate on."""
    data = toy_records.write(tmp_path / 'records', validation=validation)
    train_toy(data, tmp_path / 'run', '--max_steps=1')
    told = capsys.readouterr().err
    assert f'Next:  finetune {following} --checkpoint_dir={tmp_path}/run' in told
    assert ('--validation_directory' in told) == (not validation)


@pytest.mark.parametrize('validation', [7, 0])
def test_no_training_looks_at_the_test_set(tmp_path, capsys, validation):
    data = toy_records.write(tmp_path / 'records', validation=validation, test=6)
    for shard in data.glob('test-*'):
        shard.write_bytes(bytes(shard.stat().st_size))  # Whoever reads it fails.
    assert train_toy(data, tmp_path / 'run', '--max_steps=2') == 0
    told = capsys.readouterr().err
    assert '6 more are kept for a test (finetune eval --subset=test)' in told
    assert ('--run_once --subset=test\n' in told) == (not validation)  # Else a choice comes before the test.


def test_to_train_on_the_test_set_is_refused(tmp_path, capsys):
    data = toy_records.write(tmp_path / 'records', test=6)
    assert train_toy(data, tmp_path / 'run', '--max_steps=2', '--subset=test') == 2
    assert 'finetune eval --subset=test' in capsys.readouterr().err and not (tmp_path / 'run').exists()


@pytest.mark.parametrize('validation', [7, 0])
def test_the_metrics_are_columns_of_numbers_that_pandas_plots(tmp_path, validation):
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('matplotlib').use('Agg')
    data = toy_records.write(tmp_path / 'records', validation=validation)
    train_toy(data, tmp_path / 'run', '--epochs=3')
    figures = pandas.read_csv(tmp_path / 'run/metrics.csv', index_col='step')
    assert list(figures.index) == [3, 6, 9] and all(kind.kind in 'if' for kind in figures.dtypes)
    axes = figures.plot(y=['loss', 'validation_loss', 'validation_precision_at_1'])
    assert [line.get_xdata().tolist() for line in axes.lines] == [[3, 6, 9]] * 3


def test_step_lines_keep_the_form_that_scripts_parse(data, tmp_path, capfd):
    train_toy(data, tmp_path / 'run', '--max_steps=3', '--log_every_steps=2')
    out = capfd.readouterr().out
    assert tf.strings.regex_full_match(
        out.splitlines()[0],
        r'\d{4}-\d\d-\d\d .*: step 2, loss = \d+\.\d\d \(\d+\.\d examples/sec; \d+\.\d{3} sec/batch\)'), out


def test_the_head_alone_trains_when_the_backbone_is_frozen(data, tmp_path):
    train_toy(data, tmp_path / 'start', '--max_steps=1', '--freeze_backbone', '--batch_norm=train')
    train_toy(data, tmp_path / 'start', '--max_steps=5')
    start = build_model(Run(tmp_path / 'start').recipe, 4)
    for name, value in variables(tmp_path / 'start').items():
        for variable in start.get_layer('backbone').variables:
            if name.startswith('model/') and variable.path.replace('/', '.S') in name:
                np.testing.assert_array_equal(value, variable.numpy(), err_msg=name)
    assert not any('average' in name and 'conv' in name for name in variables(tmp_path / 'start'))


def test_training_from_a_block_on_leaves_what_is_before_it(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=4', '--trainable_from=last')
    start = build_model(Run(tmp_path / 'run').recipe, 4)
    trained = Run(tmp_path / 'run').load('last', averages=False).model
    moved = {variable.path for variable, other in zip(start.variables, trained.variables, strict=True)
             if np.abs(variable.numpy() - other.numpy()).max() > 0 and 'seed' not in variable.path}
    assert moved == {'last_conv/kernel', 'last_conv/bias', 'logits/kernel', 'logits/bias'}


@pytest.mark.slow
def test_four_towers_follow_the_curve_of_one(tmp_path):
    """In processes of their own: TensorFlow takes the sums of gradients of four towers for those of two before them."""
    data, losses = toy_records.write(tmp_path / 'records', train=8, validation=0), {}
    for count in (1, 4):
        subprocess.run([
            sys.executable, '-m', 'finetune.train', f'--data_dir={data}', f'--train_dir={tmp_path}/{count}',
            f'--num_gpus={count}', '--recipe=all_cnn_cifar10', '--width=0.1', '--image_size=16', '--batch_size=8',
            '--dropout=0', '--epochs=10'], check=True, env=os.environ | {'CUDA_VISIBLE_DEVICES': ''})
        with (tmp_path / str(count) / 'metrics.csv').open() as file:
            losses[count] = [float(row['loss']) for row in csv.DictReader(file)]
    assert len(losses[1]) == 10 and np.ptp(losses[1]) > 0  # A step is an epoch here.
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-5)
    assert_equal_variables(variables(tmp_path / '1'), variables(tmp_path / '4'), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_the_backbone_takes_smaller_steps_with_a_smaller_factor(data, tmp_path):
    moves = {}
    for factor in (1.0, 0.01):
        directory = tmp_path / str(factor)
        train_toy(data, directory, '--max_steps=1', f'--backbone_learning_rate_factor={factor}')
        start = build_model(Run(directory).recipe, 4)
        end = Run(directory).load('last', averages=False).model
        moves[factor] = [
            np.abs(start.get_layer(part).trainable_variables[0] - end.get_layer(part).trainable_variables[0]).max()
            for part in ('backbone', 'head')]
    assert moves[0.01][0] == pytest.approx(0.01 * moves[1.0][0], rel=1e-2)
    assert moves[0.01][1] == pytest.approx(moves[1.0][1], rel=1e-5)


@pytest.mark.parametrize(('flag', 'moves'), [('still', False), ('train', True)])
def test_batch_norm_statistics_stay_still_or_train_as_asked(data, tmp_path, flag, moves):
    train_toy(data, tmp_path / 'run', '--max_steps=2', f'--batch_norm={flag}')
    model = Run(tmp_path / 'run').load('last', averages=False).model
    mean = model.get_layer('backbone').get_layer('first_bn').moving_mean
    assert bool(np.abs(mean.numpy()).max() > 0) == moves


def test_weight_decay_is_half_the_sum_of_squares_of_the_kernels_only(data, tmp_path, monkeypatch):
    opened = dataset.open_records(data)
    planned = recipe.plan({'model': 'toy', 'weight_decay': 0.5, 'batch_size': 8}, None, 24)
    run = Run.create(tmp_path / 'run', planned, opened.labels, {'fingerprint': '', 'per_class': [0, 8, 8, 8]})
    strategy = tf.distribute.get_strategy()
    state = opening.build_state(run, 24, strategy)
    classifier.switch_off(state.model.get_layer('head'), [0])
    batch = {'image': tf.zeros([8, 16, 16, 3]), 'label': tf.ones([8], tf.int32)}
    kernels = [v.numpy() for v in state.model.trainable_variables if v.name == 'kernel']
    assert len(kernels) == 3
    with_decay = loop.training_step(state.model, state, planned, strategy, [0, 8, 8, 8], False)(batch)
    cross_entropy = np.log(3)  # The pictures are alike, the head starts close to zero, the background is off.
    expected = cross_entropy + 0.5 * sum(0.5 * (kernel**2).sum() for kernel in kernels)
    assert float(with_decay) == pytest.approx(expected, rel=0.02)
    apart = dataclasses.replace(planned, optimizer='adamw')  # Taken off the kernels, not added to the loss.
    state = opening.state_of(state.model, apart, 24, strategy)
    without = loop.training_step(state.model, state, apart, strategy, [0, 8, 8, 8], False)(batch)
    assert float(without) == pytest.approx(cross_entropy, rel=0.02)


def test_label_smoothing_gives_nothing_to_a_background_that_never_occurs():
    logits = tf.constant([[-50.0, 2.0, 0.0]])
    smoothed = loop.cross_entropy(logits, tf.constant([1]), 0.1, [0, 5, 5])
    log_p = np.array([2.0, 0.0]) - np.log(np.exp(2) + 1)
    assert float(smoothed[0]) == pytest.approx(-(0.95 * log_p[0] + 0.05 * log_p[1]), rel=1e-4)


def test_a_picture_of_a_rare_class_counts_as_much_as_its_weight():
    logits, labels = tf.constant([[0.0, 1.0], [0.0, 1.0]]), tf.constant([0, 1])
    plain = loop.cross_entropy(logits, labels, 0.1, [2, 8])
    np.testing.assert_allclose(loop.cross_entropy(logits, labels, 0.1, [2, 8], [2.5, 0.625]), plain * [2.5, 0.625])


@pytest.mark.parametrize(('flags', 'exit_code', 'sentence'), [
    (['--data_dir=nowhere'], 1, 'nowhere'),
    (['--model=mobilnet_v2'], 2, 'Did you mean'),
    (['--fine_tune'], 2, '--pretrained'),
    (['--pretrained=gone.weights.h5'], 1, 'gone.weights.h5 does not exist'),
    (['--batch_size=7', '--num_gpus=2'], 1, '--batch_size=6'),
    (['--batch_size=0'], 2, 'batch_size'),
    (['--dropout=1.5'], 2, 'dropout'),
    (['--freeze_backbone', '--trainable_from=last'], 2, 'give one of them'),
    (['--freeze_backbone', 'False'], 2, '--noflag'),
    (['--epochs=3'], 2, 'give one of them'),
    (['--trainable_from=lost'], 1, 'last_conv'),
    (['--width=0.5'], 1, '--width'),
    (['--seed=5000000000'], 2, '--seed'),
    (['--rmsprop_epsilon=0'], 2, '--rmsprop_epsilon'),
    (['--aux_weight=0.4', '--feature_layers=first_conv'], 1, 'reads first_bn, which --feature_layers leaves out'),
])
def test_each_error_names_the_flag_and_the_remedy(data, tmp_path, capfd, flags, exit_code, sentence):
    assert train_toy(data, tmp_path / 'run', '--max_steps=2', *flags) == exit_code
    err = capfd.readouterr().err
    assert sentence in err and 'Traceback' not in err


def test_a_run_refuses_another_recipe_other_labels_and_other_records(data, tmp_path, capfd):
    run = tmp_path / 'run'
    train_toy(data, run, '--max_steps=2')
    assert train_toy(data, run, '--max_steps=3', '--dropout=0.7') == 1
    assert '--dropout was 0.2 and is now 0.7' in capfd.readouterr().err
    assert train_toy(data, run, '--max_steps=3', '--dropout=0.7', '--override') == 0
    other = toy_records.write(tmp_path / 'other', seed=5)
    assert train_toy(other, run, '--max_steps=4') == 1
    assert 'not those' in capfd.readouterr().err
    renamed = toy_records.write(tmp_path / 'renamed', labels=('background', 'a', 'b', 'c'))
    assert train_toy(renamed, run, '--max_steps=4', '--override') == 1
    assert 'other labels' in capfd.readouterr().err


def test_a_run_says_what_it_depends_on(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=2')
    facts = json.loads((tmp_path / 'run/recipe.json').read_text())
    assert facts['recipe']['model'] == 'toy' and facts['recipe']['image_size'] == 16
    assert None not in facts['recipe'].values()
    assert facts['records']['per_class'] == [0, 8, 8, 8] and facts['records']['treatment']['format'] == 'JPEG'
    assert (tmp_path / 'run/labels.txt').read_text() == 'red\ngreen\nblue\n'
    assert facts['versions']['keras'] == keras.version()


def test_a_shard_that_was_changed_is_named_when_it_is_asked_for(data, tmp_path, capfd):
    shard = data / 'train-00001-of-00002'
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(content)
    assert train_toy(data, tmp_path / 'run', '--max_steps=1', '--verify') == 1
    assert 'train-00001-of-00002: its sha256 differs' in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(('waiting', 'said'), [(0.1, 0), (0.6, 1)])
def test_a_slow_input_is_named_once_with_what_helps(data, tmp_path, monkeypatch, capfd, waiting, said):
    now, next_batch = [0.0], journal.Journal.next_batch

    def one_second_a_step(self, batch_iterator):
        now[0] += 1 - waiting
        return next_batch(self, map(late, batch_iterator))

    def late(batch):
        now[0] += waiting
        return batch

    monkeypatch.setattr(journal.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(journal.Journal, 'next_batch', one_second_a_step)
    assert train_toy(data, tmp_path / 'run', '--max_steps=60') == 0
    assert capfd.readouterr().err.count('60% of the time goes into waiting for pictures') == said


@pytest.mark.parametrize('was_there', [False, True])
def test_a_typing_error_leaves_no_run_behind(data, tmp_path, capfd, was_there):
    directory = tmp_path / 'run'
    if was_there:
        directory.mkdir()
    assert train_toy(data, directory, '--max_steps=1', '--epochs=1') == 2
    assert directory.exists() == was_there
