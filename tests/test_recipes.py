"""The named recipes, and the command that lists them."""

import numpy as np
import pytest

from finetune import recipes, train
from finetune.console.lazy import keras, tf
from finetune.models import zoo
from finetune.runs import catalogue, recipe
from finetune.runs.run import Run
from finetune.runs.state import build_model
from finetune.training import opening
from tests import toy_records


@pytest.mark.parametrize('name', catalogue.names())
def test_every_value_of_a_named_recipe_is_what_its_flag_would_read(name):
    flags = catalogue.find(name).flags
    typed = [f'--{flag}={value}' for flag, value in flags.items()]
    parsed = train.FLAGS.parse(typed)
    for flag, value in flags.items():
        assert getattr(parsed, flag) == value and type(getattr(parsed, flag)) is type(value), flag


@pytest.mark.parametrize('name', catalogue.names())
def test_every_named_recipe_can_be_planned(name):
    planned = recipe.plan({'recipe': name}, None, 50_000)
    assert planned.recipe == name and planned.model in zoo.NETS


def test_published_lengths_are_those_of_the_whole_data():
    """What the originals computed for 50,000 pictures of CIFAR-10 and 3170 flowers."""
    resnet = recipe.plan({'recipe': 'resnet56_cifar10'}, None, 50_000)
    assert resnet.max_steps == round(182 * 50_000 / 128)
    flowers = recipe.plan({'recipe': 'inception_v3_flowers'}, None, 3170)
    assert (flowers.max_steps, round(flowers.epochs, 1)) == (2000, 20.2)


@pytest.mark.slow
def test_inception_v3_from_scratch_has_the_training_form_of_the_original():
    planned = recipe.plan({'recipe': 'inception_v3_imagenet', 'image_size': 75}, None, 1_281_167)
    state = opening.state_of(build_model(planned, 5), planned, 1_281_167, tf.distribute.get_strategy())
    every = [*state.model.get_layer('backbone').layers, *state.auxiliary.head.layers]
    norms = [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon, norm.scale) for norm in norms} == {(0.9997, 0.001, False)}
    assert len(norms) == 94 + 2 and state.model.get_layer('head').get_layer('dropout').rate == 0.2
    assert (planned.aux_weight, planned.label_smoothing, planned.weight_decay) == (0.4, 0.1, 4e-5)
    assert state.auxiliary.backbone.outputs[1].shape[1:] == (3, 3, 768)  # Of 75 px; 17x17 of 299.


def test_the_list_names_every_recipe_and_what_is_published_for_it(capsys):
    assert recipes.main([]) == 0
    out = capsys.readouterr().out
    for name in catalogue.names():
        assert name in out and catalogue.find(name).published in out


def test_one_recipe_is_told_with_source_notes_and_flags(capsys):
    assert recipes.main(['densenet_bc_cifar10']) == 0
    out = capsys.readouterr().out
    assert 'BIGBALLON' in out and '769,162' in out and '--learning_rate_pieces=101:0.1,181:0.005' in out


@pytest.mark.parametrize(('arguments', 'sentence'), [
    (['densenet'], 'Did you mean densenet_bc_cifar10'), (['mnist_cnn', 'all'], 'one name too many')])
def test_what_cannot_be_told_is_bad_usage(capsys, arguments, sentence):
    assert recipes.main(arguments) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_the_start_screen_says_which_recipe_it_is_and_what_was_changed(tmp_path, capfd):
    data = toy_records.write(tmp_path / 'records')
    flags = [f'--data_dir={data}', f'--train_dir={tmp_path}/run', '--recipe=mnist_cnn', '--width=0.1', '--batch_size=8']
    assert train.main([*flags, '--max_steps=2']) == 0
    told = capfd.readouterr().err
    assert 'Recipe     mnist_cnn (--recipe)' in told
    assert 'changed: --batch_size=8 instead of 128, --max_steps=2 instead of 10000' in told
    assert 'adam, learning rate 0.0001 (' in told
    assert train.main([*flags, '--max_steps=3']) == 0  # It goes on.
    assert train.main([*flags[:2], '--recipe=alexnet_mnist']) == 1
    assert '--recipe was mnist_cnn and is now alexnet_mnist' in capfd.readouterr().err


@pytest.mark.slow
def test_all_cnn_learns_on_two_towers_what_it_learns_on_one(tmp_path):
    data = toy_records.write(tmp_path / 'records')
    for towers in (1, 2):
        assert train.main([
            f'--data_dir={data}', f'--train_dir={tmp_path}/{towers}', f'--num_gpus={towers}',
            '--recipe=all_cnn_cifar10', '--width=0.1', '--image_size=16', '--dropout=0', '--batch_size=8',
            '--max_steps=10']) == 0
    one, two = (Run(tmp_path / str(towers)).load('last').model.get_weights() for towers in (1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
