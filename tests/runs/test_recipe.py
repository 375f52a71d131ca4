import dataclasses

import pytest

from finetune.console.errors import Error, UsageError
from finetune.runs import recipe
from finetune.runs.recipe import Recipe


def test_a_plan_leaves_nothing_open():
    for typed in ({}, {'pretrained': 'w.h5', 'fine_tune': True}, {'pretrained': 'w.h5', 'freeze_backbone': True}):
        assert None not in dataclasses.asdict(recipe.plan(typed, None, 1000)).values()


def test_what_was_typed_is_never_overridden():
    typed = {'model': 'inception_v3', 'image_size': 100, 'initial_learning_rate': 0.5, 'epochs': 2.0,
             'batch_norm': 'train', 'min_crop_area': 0.9, 'flip': False, 'pretrained': 'w.h5', 'fine_tune': True}
    planned = dataclasses.asdict(recipe.plan(typed, recipe.plan({}, None, 10), 1000))
    assert {name: planned[name] for name in typed} == typed


def test_epochs_become_steps_once_and_steps_become_epochs():
    assert recipe.plan({'epochs': 3.0, 'batch_size': 32}, None, 100).max_steps == 9
    assert recipe.plan({'max_steps': 2000, 'batch_size': 32}, None, 3170).epochs == pytest.approx(20.19, abs=0.01)


def test_a_run_behind_pretrained_says_which_network_it_is():
    source = recipe.plan({'model': 'mobilenet_v2', 'width': 0.35, 'image_size': 96}, None, 10)
    planned = recipe.plan({'pretrained': 'run', 'fine_tune': True}, source, 10)
    assert (planned.model, planned.width, planned.image_size) == ('mobilenet_v2', 0.35, 96)


def test_a_new_head_on_a_backbone_that_stays_reads_the_blocks_that_were_measured_to_help():
    alone = {'model': 'mobilenet_v2', 'pretrained': 'w.h5', 'fine_tune': True, 'freeze_backbone': True}
    head = recipe.plan(alone, None, 100)
    assert head.feature_layers == 'block_12_add,block_15_add,out_relu'
    assert recipe.plan(alone | {'feature_layers': ''}, None, 100).feature_layers == ''
    for changed in ({'freeze_backbone': False}, {'fine_tune': False}):  # A published head reads what it was made for.
        assert recipe.plan(alone | changed, None, 100).feature_layers == ''
    after = recipe.plan({'pretrained': 'run', 'trainable_from': 'block_13'}, head, 100)
    assert after.feature_layers == head.feature_layers


@pytest.mark.parametrize(('records', 'classes', 'typed', 'optimizer'), [
    (100_000, 1000, {}, 'regression'), (100_000, 2000, {}, 'rmsprop'), (30_000, 10_000, {}, 'rmsprop'),
    (500_000, 2, {}, 'rmsprop'), (100_000, 2, {'views': 5}, 'rmsprop'),
    (500_000, 2, {'optimizer': 'regression'}, 'regression')])
def test_a_head_too_large_to_solve_at_once_takes_steps_unless_somebody_insists(records, classes, typed, optimizer):
    typed = {'pretrained': 'w.h5', 'fine_tune': True, 'freeze_backbone': True} | typed
    assert recipe.plan(typed, None, records, classes).optimizer == optimizer


def test_another_network_than_the_one_behind_pretrained_has_its_own_size():
    source = recipe.plan({'model': 'mobilenet_v2', 'width': 0.35, 'image_size': 96}, None, 10)
    planned = recipe.plan({'model': 'inception_v3', 'pretrained': 'run'}, source, 10)
    assert (planned.width, planned.image_size) == (1.0, 299)


@pytest.mark.parametrize(('typed', 'sentence'), [
    ({'fine_tune': True}, '--pretrained'),
    ({'freeze_backbone': True, 'trainable_from': 'x'}, 'one of them'),
    ({'optimizer': 'regression'}, '--freeze_backbone'),
    ({'learning_rate_schedule': 'piecewise'}, '--learning_rate_pieces'),
    ({'learning_rate_pieces': '9:0.1'}, '--learning_rate_schedule=piecewise'),
    ({'learning_rate_schedule': 'piecewise', 'learning_rate_pieces': '9=0.1'}, 'is not understood'),
    ({'model': 'mobilenet_v2', 'aux_weight': 0.4}, 'mobilenet_v2 has none'),
    ({'recipe': 'inception_v3_flowers', 'freeze_backbone': True}, 'Use --aux_weight=0'),
    ({'recipe': 'inception_v3_flowers', 'trainable_from': 'mixed9'}, 'Use --aux_weight=0'),
    ({'recipe': 'resnet_cifar10'}, 'Did you mean resnet56_cifar10'),
    ({'optimizer': 'regression', 'freeze_backbone': True, 'feature_cache': 'off'}, '--feature_cache=on'),
    ({'optimizer': 'regression', 'freeze_backbone': True, 'epochs': 3.0}, '--epochs has nothing to do'),
    ({'optimizer': 'adam'}, '--initial_learning_rate=0.001'),
])
def test_what_cannot_be_is_said_before_anything_is_built(typed, sentence):
    with pytest.raises(Error, match=sentence):
        recipe.plan(typed, None, 100)


@pytest.mark.parametrize(('typed', 'optimizer'), [
    ({'freeze_backbone': True}, 'regression'),
    ({'freeze_backbone': True, 'label_smoothing': 0.1, 'views': 3, 'seed': 2}, 'regression'),
    ({'freeze_backbone': True, 'epochs': 100.0}, 'rmsprop'),
    ({'freeze_backbone': True, 'initial_learning_rate': 0.1}, 'rmsprop'),
    ({'freeze_backbone': True, 'feature_cache': 'off'}, 'rmsprop'),
    ({'freeze_backbone': True, 'optimizer': 'adam', 'initial_learning_rate': 0.001}, 'adam'),
    ({'trainable_from': 'block_13'}, 'rmsprop'),
    ({}, 'rmsprop'),
])
def test_a_head_alone_is_solved_for_unless_a_flag_asks_for_steps(typed, optimizer):
    assert recipe.plan({'pretrained': 'w.h5', 'fine_tune': True, **typed}, None, 1000).optimizer == optimizer


def test_a_later_end_is_no_other_recipe():
    old = recipe.plan({'epochs': 2.0}, None, 320)
    assert recipe.differences(old, {'epochs': 4.0, 'max_steps': 7}) == []
    assert recipe.extend(old, {'epochs': 4.0}, 320).max_steps == 40
    assert recipe.differences(old, {'dropout': 0.9}) == [('dropout', old.dropout, 0.9)]


def test_a_run_whose_learning_rate_falls_to_0_at_its_end_has_no_later_end():
    old = recipe.plan({'epochs': 2.0, 'learning_rate_schedule': 'cosine'}, None, 320)
    with pytest.raises(Error, match='Use another --train_dir'):
        recipe.extend(old, {'epochs': 4.0}, 320)
    assert recipe.extend(old, {'patience': 3}, 320).patience == 3
    assert recipe.extend(old, {'epochs': 2.0}, 320) == old  # The same command again.


def test_a_run_of_so_many_steps_has_as_many_on_other_records():
    old = recipe.plan({'max_steps': 12}, None, 60)
    assert recipe.extend(old, {'patience': 50}, 100).max_steps == 12


def test_another_schedule_than_that_of_the_named_recipe_has_no_pieces():
    planned = recipe.plan({'recipe': 'resnet56_cifar10', 'learning_rate_schedule': 'cosine'}, None, 320)
    assert planned.learning_rate_pieces == ''


def test_a_recipe_from_before_pictures_were_shifted_goes_on_without_shifting(tmp_path):
    values = dataclasses.asdict(recipe.plan({}, None, 320))
    for name in ('shift', 'recipe', 'learning_rate_schedule', 'learning_rate_pieces', 'warmup_epochs'):
        del values[name]
    old = Recipe.from_json(values, tmp_path / 'recipe.json')
    assert old == recipe.plan({}, None, 320) and old.distorted().shift == 0.0


def test_what_was_typed_wins_over_the_named_recipe_and_that_over_the_rest():
    planned = recipe.plan({'recipe': 'all_cnn_cifar10', 'batch_size': 16, 'max_steps': 7}, None, 160)
    assert (planned.batch_size, planned.max_steps, planned.epochs) == (16, 7, 0.7)
    assert (planned.model, planned.optimizer, planned.dropout) == ('all_cnn', 'nesterov', 0.5)
    distortion = planned.distorted()
    assert (distortion.shift, distortion.flip, distortion.whole_pixels) == (0.1, False, False)


def test_a_recipe_of_another_version_is_named(tmp_path):
    with pytest.raises(Error, match=r'recipe\.json has warp_speed'):
        Recipe.from_json({'warp_speed': 9}, tmp_path / 'recipe.json')


@pytest.mark.parametrize('values', [{'model': 5}, {'distortion': 'nope'}, {'seed': 1.5}, {'fine_tune': 'yes'}])
def test_a_recipe_with_values_of_another_kind_is_refused_with_their_names(tmp_path, values):
    with pytest.raises(Error, match=f'for {next(iter(values))}: this program did not write it'):
        Recipe.from_json(values, tmp_path / 'recipe.json')


@pytest.mark.parametrize('pieces', ['-1:2', '1:nan', 'inf:0.1', '1:2:3', 'soon'])
def test_pieces_of_a_learning_rate_are_numbers_from_0_on(pieces):
    with pytest.raises(UsageError, match='EPOCH:MULTIPLE'):
        Recipe(learning_rate_pieces=pieces).pieces()


def test_balanced_weights_let_every_class_that_occurs_count_the_same_and_a_picture_1_on_average():
    per_class = [0, 100, 20, 0, 30]
    weights = Recipe(class_weights='balanced').weights_of_classes(per_class)
    of_classes = [weight * count for weight, count in zip(weights, per_class, strict=True)]
    assert of_classes == pytest.approx([0, 50, 50, 0, 50])
    assert Recipe().weights_of_classes(per_class) is None
