"""What each effort trains, and what there is time for."""

import pytest

from finetune.projects import pace, plans
from finetune.runs import recipe as recipes

HEAD = recipes.plan({'model': 'mobilenet_v2', 'pretrained': 'w.h5', **plans.HEAD}, None, 3000)


def after(effort: str, records: int = 3000, **typed):
    return plans.after_the_head(effort, {'pretrained': 'w.h5', **typed}, HEAD, 'project/head', records)


@pytest.mark.parametrize(('effort', 'names'), [
    ('quick', []), ('good', ['last_blocks']), ('best', ['last_blocks', 'larger_pictures'])])
def test_every_effort_does_what_the_smaller_ones_do_and_more(effort, names):
    assert [planned.name for planned in after(effort)] == names


def test_what_comes_after_the_head_begins_with_it_and_makes_whole_recipes():
    for planned in after('best'):
        recipe = recipes.plan(planned.recipe, HEAD, 3000)
        assert recipe.pretrained == 'project/head' and not recipe.fine_tune and recipe.trainable_from == 'block_13'
    assert recipe.image_size == 288


def test_few_pictures_get_more_and_smaller_steps():
    """With the steps of many pictures, a head that was right of 99 % of 120 ended at 88 %."""
    many, few = (recipes.plan(after('good', records)[0].recipe, HEAD, records) for records in (3000, 360))
    assert few.batch_size < many.batch_size and few.initial_learning_rate < many.initial_learning_rate
    assert few.max_steps > 100


def test_what_was_typed_is_never_overridden():
    planned, = after('good', 360, batch_size=8, epochs=3.0, trainable_from='block_15')
    assert (planned.recipe['batch_size'], planned.epochs, planned.recipe['trainable_from']) == (8, 3.0, 'block_15')


def test_no_picture_is_mirrored_where_a_mirror_makes_another_one_of_it():
    assert after('good')[0].recipe['mirrored_view']
    for typed in ({'flip': False}, {'distortion': 'none'}, {'views': 1}):  # Of one view, none is the second.
        assert 'mirrored_view' not in after('good', **typed)[0].recipe


def test_a_length_in_steps_replaces_that_in_epochs():
    for planned in after('best', max_steps=40):
        assert recipes.plan(planned.recipe, HEAD, 3000).max_steps == 40


def test_towers_share_every_batch():
    planned, = plans.after_the_head('good', {}, HEAD, 'project/head', 360, towers=3)
    assert planned.recipe['batch_size'] == 15


def test_flags_of_steps_are_not_for_the_head_which_is_solved_for():
    planned = plans.head({'model': 'mobilenet_v2', 'pretrained': 'w.h5', 'epochs': 3.0, 'views': 2})
    recipe = recipes.plan(planned.recipe, None, 3000)
    assert recipe.optimizer == 'regression' and recipe.views == 1


def test_with_less_time_there_are_fewer_epochs_and_with_too_little_none():
    planned, = after('good')
    whole = pace.seconds_of(planned, 3000, 0.01) + pace.AT_THE_END_SECONDS
    assert pace.that_fits(planned, whole + 1, 3000, 0.01) == planned
    shorter = pace.that_fits(planned, whole - 20, 3000, 0.01)
    assert plans.FEWEST_EPOCHS <= shorter.epochs < planned.epochs
    assert pace.that_fits(planned, 30, 3000, 0.01) is None
