import csv
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from finetune import journal, recipe, records, runs, train
from finetune.lazy import keras, tf
from finetune.models import zoo
from finetune.runs import Run
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


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(data, tmp_path):
    flags = ('--dropout=0.5', '--distortion=inception', '--optimizer=rmsprop', '--aux_weight=0.4')
    assert train_toy(data, tmp_path / 'whole', '--max_steps=6', *flags) == 0
    assert train_toy(data, tmp_path / 'parts', '--max_steps=3', *flags) == 0
    assert train_toy(data, tmp_path / 'parts', '--max_steps=6', *flags) == 0
    assert_equal_variables(variables(tmp_path / 'whole'), variables(tmp_path / 'parts'), rtol=0, atol=0)


def test_an_auxiliary_head_trains_and_leaves_the_answers_to_the_network_it_was_in(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=2', '--aux_weight=0.4')
    auxiliary = {name: value for name, value in variables(tmp_path / 'run').items() if name.startswith('auxiliary')}
    assert len(auxiliary) == 10  # Three kernels, the bias of the logits, three of each of two batch norms.
    biases = [value for name, value in auxiliary.items() if 'logits' in name and value.ndim == 1]
    assert biases[0][0] == zoo.NEVER and biases[0][1:].any()  # The background is off here too; the rest has moved.
    trained = Run(tmp_path / 'run').load().model
    assert trained.count_params() == runs.build_model(Run(tmp_path / 'run').recipe, 4).count_params()
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
    start = runs.build_model(Run(tmp_path / 'start').recipe, 4)
    for name, value in variables(tmp_path / 'start').items():
        for variable in start.get_layer('backbone').variables:
            if name.startswith('model/') and variable.path.replace('/', '.S') in name:
                np.testing.assert_array_equal(value, variable.numpy(), err_msg=name)
    assert not any('average' in name and 'conv' in name for name in variables(tmp_path / 'start'))


def test_training_from_a_block_on_leaves_what_is_before_it(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=4', '--trainable_from=last')
    start = runs.build_model(Run(tmp_path / 'run').recipe, 4)
    trained = Run(tmp_path / 'run').load('last', averages=False).model
    moved = {variable.path for variable, other in zip(start.variables, trained.variables, strict=True)
             if np.abs(variable.numpy() - other.numpy()).max() > 0 and 'seed' not in variable.path}
    assert moved == {'last_conv/kernel', 'last_conv/bias', 'logits/kernel', 'logits/bias'}


def test_a_second_training_is_refused_before_it_changes_anything(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    for step in Run(tmp_path / 'run').steps():
        Run(tmp_path / 'run')._remove('ckpt', step)  # As if the first one had not come to its first checkpoint.
    before = {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()}
    with runs.lock(tmp_path / 'run'):
        assert train_toy(data, tmp_path / 'run', '--max_steps=99', '--optimizer=adam', '--seed=9') == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / 'run').iterdir()} == before


@pytest.mark.parametrize('saved', [b'step;epoch;loss\n3;1;0,5\n', 'step,epoch\n3,1\n'.encode('utf-16')])
def test_a_table_that_a_spreadsheet_saved_in_its_own_way_is_named(data, tmp_path, saved, capfd):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    (tmp_path / 'run/metrics.csv').write_bytes(saved)
    assert train_toy(data, tmp_path / 'run', '--max_steps=6') == 1
    assert 'metrics.csv is not the table that this program wrote' in capfd.readouterr().err


@pytest.mark.slow
def test_what_a_killed_copy_left_is_removed(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--max_steps=3')
    (tmp_path / 'run/.best-3.data.77.tmp').write_bytes(b'half')
    train_toy(data, tmp_path / 'run', '--max_steps=4')
    assert not list((tmp_path / 'run').glob('.*.tmp'))


def test_the_best_is_the_best_of_what_could_be_saved(data, tmp_path, monkeypatch, capsys):
    scores, save = iter([0.3, 0.9, 0.5, 0.8, 0.1]), Run.save
    monkeypatch.setattr(journal.Journal, '_validate', lambda self: SimpleNamespace(
        precision_at_1=next(scores), recall_at_5=1.0, loss=1.0, records=7))

    def failing(self, state):
        if int(state.step.numpy()) == 6:
            raise OSError(28, 'No space left on device')
        save(self, state)

    monkeypatch.setattr(Run, 'save', failing)
    assert train_toy(data, tmp_path / 'run', '--max_steps=15') == 0
    assert Run(tmp_path / 'run').best_step == 12  # 0.8; the 0.9 of step 6 is on no disk.
    assert '(best: 0.8000 at step 12)' in capsys.readouterr().out


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
        start = runs.build_model(Run(directory).recipe, 4)
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
    opened = records.open_records(data)
    planned = recipe.plan({'model': 'toy', 'weight_decay': 0.5, 'batch_size': 8}, None, 24)
    run = Run.create(tmp_path / 'run', planned, opened.labels, {'fingerprint': '', 'per_class': [0, 8, 8, 8]})
    strategy = tf.distribute.get_strategy()
    state = train.build_state(run, 24, strategy)
    batch = {'image': tf.zeros([8, 16, 16, 3]), 'label': tf.ones([8], tf.int32)}
    kernels = [v.numpy() for v in state.model.trainable_variables if v.name == 'kernel']
    assert len(kernels) == 3
    with_decay = train.training_step(state.model, state, planned, strategy, [0, 8, 8, 8], False)(batch)
    cross_entropy = np.log(3)  # The pictures are alike, the head starts close to zero, the background is off.
    expected = cross_entropy + 0.5 * sum(0.5 * (kernel**2).sum() for kernel in kernels)
    assert float(with_decay) == pytest.approx(expected, rel=0.02)


def test_label_smoothing_gives_nothing_to_a_background_that_never_occurs():
    logits = tf.constant([[-50.0, 2.0, 0.0]])
    smoothed = train.cross_entropy(logits, tf.constant([1]), 0.1, [0, 5, 5])
    log_p = np.array([2.0, 0.0]) - np.log(np.exp(2) + 1)
    assert float(smoothed[0]) == pytest.approx(-(0.95 * log_p[0] + 0.05 * log_p[1]), rel=1e-4)


@pytest.mark.slow
def test_divergence_stops_the_run_with_its_own_exit_code_and_leaves_a_finite_checkpoint(data, tmp_path, capfd):
    assert train_toy(data, tmp_path / 'run', '--max_steps=3') == 0
    assert train_toy(
        data, tmp_path / 'nan', '--max_steps=40', '--initial_learning_rate=1e30', '--log_every_steps=1') == 3
    assert 'lower --initial_learning_rate' in capfd.readouterr().err
    for step in Run(tmp_path / 'nan').steps():
        assert all(np.isfinite(v).all() for v in Run(tmp_path / 'nan').load(step, averages=False).model.get_weights())


@pytest.mark.parametrize(('number', 'exit_code'), [
    (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_same_command_goes_on(data, tmp_path, monkeypatch, number, exit_code):
    whole = tmp_path / 'whole'
    train_toy(data, whole, '--max_steps=5')
    steps_done = journal.Journal.steps_done

    def interrupted(self, step, steps, loss):
        steps_done(self, step, steps, loss)
        if step == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(journal.Journal, 'steps_done', interrupted)
    assert train_toy(data, tmp_path / 'run', '--max_steps=5') == exit_code
    assert Run(tmp_path / 'run').steps() == [2]
    monkeypatch.undo()
    from tests import toy_net
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
    assert train_toy(data, tmp_path / 'run', '--max_steps=5') == 0
    assert_equal_variables(variables(whole), variables(tmp_path / 'run'), rtol=0, atol=0)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_it_used(data, tmp_path, capfd):
    train_toy(data, tmp_path / 'run', '--epochs=2')
    run = Run(tmp_path / 'run')
    assert run.steps() == [3, 6]
    file = run.directory / 'ckpt-6.data-00000-of-00001'
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # The best checkpoint may be a hard link to the same bytes.
    file.write_bytes(content)
    capfd.readouterr()
    assert train_toy(data, tmp_path / 'run', '--epochs=3') == 0
    err = capfd.readouterr().err
    assert 'ckpt-6 is damaged' in err and 'goes on from step 3' in err


@pytest.mark.slow
def test_old_checkpoints_go_and_the_best_one_stays(data, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, 'SECONDS_BETWEEN_SAVES', 0)
    train_toy(data, tmp_path / 'run', '--epochs=12')
    run = Run(tmp_path / 'run')
    assert len(run.steps()) == runs.KEPT
    rows = list(csv.DictReader((tmp_path / 'run/metrics.csv').open()))
    best = max(rows, key=lambda row: (float(row['validation_precision_at_1']), -int(row['step'])))
    assert run.best_step == int(best['step'])
    assert run.load().step == run.best_step


def test_checkpoints_of_every_other_epoch_stay_for_good_when_asked(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--epochs=10', '--keep_every_epochs=2')
    run = Run(tmp_path / 'run')
    kept = [step for step in range(1, 31) if list(run.directory.glob(f'kept-{step}.index'))]
    assert kept == [6, 12, 18, 24, 30]  # Three steps an epoch.
    left_only_by_asking = set(kept) - set(run.steps()) - {run.best_step}
    assert left_only_by_asking
    for step in left_only_by_asking:
        assert run.load(step).step == step


def test_patience_ends_a_run_that_no_longer_gets_better(data, tmp_path):
    assert train_toy(data, tmp_path / 'run', '--epochs=50', '--patience=2', '--initial_learning_rate=0') == 0
    assert Run(tmp_path / 'run').steps()[-1] == 9  # Three epochs: the first is the best, two are not better.


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
