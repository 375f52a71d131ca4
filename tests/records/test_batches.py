import collections

import numpy as np
import pytest

from finetune.console import teams
from finetune.console.lazy import tf
from finetune.evaluation import inference
from finetune.models import classifier, engines
from finetune.pictures.views import DISTORTIONS
from finetune.records import batches, dataset
from tests import toy_records

pytestmark = pytest.mark.kernels


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    return dataset.open_records(toy_records.write(tmp_path_factory.mktemp('toy') / 'records', train=10, validation=7))


def training(toy, first_step=0, batch_size=4, seed=1, distortion='inception'):
    return batches.for_training(toy, 'train', 16, DISTORTIONS[distortion], batch_size, seed, first_step)


def names(dataset, steps):
    return [name for batch in dataset.take(steps) for name in batch['filename'].numpy()]


@pytest.mark.parametrize('towers', [1, 2])
@pytest.mark.parametrize('batch_size', [1, 3, 4, 7, 8])
def test_every_image_counts_once_with_a_partial_last_batch(toy, towers, batch_size):
    strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'][:towers])
    with strategy.scope():
        model = classifier.build('toy', 4, image_size=16)
    seen = []
    pictures = batches.for_evaluation(toy, 'validation', 16, 0.875, batch_size)
    outputs = inference.outputs(engines.function(model), pictures, strategy, seen.append)
    assert collections.Counter(outputs.filenames) == {name: 1 for name in outputs.filenames}
    assert len(outputs.filenames) == len(outputs.labels) == len(outputs.logits) == sum(seen) == 7
    for name, label in zip(outputs.filenames, outputs.labels, strict=True):
        assert name.decode().startswith(toy.labels[label])


def test_two_towers_answer_as_one_does(toy):
    answers = {}
    for towers in (1, 2):
        strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'][:towers])
        classifier.start_afresh(seed=1)
        with strategy.scope():
            model = classifier.build('toy', 4, image_size=16)
        outputs = inference.outputs(
            engines.function(model), batches.for_evaluation(toy, 'validation', 16, 0.875, 3), strategy)
        answers[towers] = dict(zip(outputs.filenames, outputs.logits, strict=True))
    for name, logits in answers[1].items():
        np.testing.assert_allclose(answers[2][name], logits, atol=1e-6)


def test_an_epoch_is_every_picture_once_although_batches_do_not_divide_it(toy):
    seen = names(training(toy), steps=10)  # 40 pictures: four epochs of ten.
    for epoch in range(4):
        assert len(set(seen[10 * epoch:10 * epoch + 10])) == 10


def test_tensorflow_has_nothing_to_remark_on_a_training_feed(toy, caplog):
    """Its warnings stood between the lines of every training."""
    tf.get_logger().addHandler(caplog.handler)
    try:
        names(training(toy), 1)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert not caplog.records


def test_epochs_come_in_different_orders_and_the_seed_decides_them(toy):
    seen = names(training(toy), steps=5)
    assert seen[:10] != seen[10:]
    assert names(training(toy), steps=5) == seen
    assert names(training(toy, seed=2), steps=5) != seen


@pytest.mark.parametrize('in_memory', [3, batches.SHUFFLE_RECORDS])
@pytest.mark.parametrize('first_step', [1, 2, 3, 6, 7])
def test_the_data_go_on_from_any_step_as_if_nothing_had_happened(toy, monkeypatch, first_step, in_memory):
    monkeypatch.setattr(batches, 'SHUFFLE_RECORDS', in_memory)
    whole = list(training(toy).take(9))[first_step:]
    resumed = list(training(toy, first_step).take(9 - first_step))
    for before, after in zip(whole, resumed, strict=True):
        for key in before:
            np.testing.assert_array_equal(before[key], after[key])


def test_to_go_on_in_the_middle_shuffles_nothing_that_lies_before(toy, monkeypatch):
    """At 80,000 records that took 2 s."""
    monkeypatch.setattr(batches, 'SHUFFLE_RECORDS', 2)
    shuffled, shuffle = [], tf.random.experimental.stateless_shuffle

    def noted(block, seed):
        if block.dtype == tf.string and block.shape.rank == 1 and not tf.executing_eagerly():
            tf.py_function(lambda block: shuffled.append(len(block)), [block], [])
        return shuffle(block, seed)

    monkeypatch.setattr(tf.random.experimental, 'stateless_shuffle', noted)
    order = batches._epoch(toy.split('train'), toy.paths('train'), 0, tf.constant(0, tf.int64), 6)
    assert len(list(order)) == 4
    assert sum(shuffled) == 4


def test_a_picture_is_distorted_differently_in_every_epoch(toy):
    views = collections.defaultdict(list)
    for batch in training(toy).take(5):
        for name, image in zip(batch['filename'].numpy(), batch['image'].numpy(), strict=True):
            views[name].append(image)
    assert all(np.abs(first - second).max() > 0.01 for first, second in views.values())


def test_no_two_epochs_and_no_two_views_share_their_seeds():
    """Else the pictures at one place would be cropped, turned and coloured alike in every epoch."""
    seeds = [int(batches._seed(seed, purpose, number)) for seed in (1, 2) for purpose in (0, 2) for number in range(9)]
    assert len(set(seeds)) == len(seeds)


def test_labels_survive_a_class_that_is_missing_from_validation(tmp_path):
    data = dataset.open_records(toy_records.write(tmp_path / 'records', train=9, validation=1))
    [batch] = batches.for_evaluation(data, 'validation', 16, 0.875, 4)
    assert batch['label'].numpy().tolist() == [1]
    assert data.num_classes == 4


def test_a_mirrored_view_is_the_view_of_evaluation_seen_in_a_mirror_and_the_others_stay_as_they_were(toy):
    def views(mirrored):
        pictures = batches.of_all_views(
            toy, 'train', 16, 0.875, 4, DISTORTIONS['inception'], 1, 10, np.ones(10, bool), mirrored=mirrored)
        return next(iter(pictures))['image'].numpy()

    without, with_mirrored = views(False), views(True)
    np.testing.assert_array_equal(with_mirrored[:, 1], with_mirrored[:, 0, :, ::-1])
    np.testing.assert_array_equal(with_mirrored[:, [0, 2, 3]], without[:, [0, 2, 3]])
    assert np.abs(with_mirrored[:, 1] - without[:, 1]).max() > 0.1


@pytest.mark.parametrize(('machines', 'towers'), [
    (2, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((4, 1), (2, 2)))])
def test_several_machines_get_together_what_one_gets(toy, machines, towers):
    """To the bit, whatever the step that they go on from, and though batches of 4 do not divide 10 records."""
    whole = list(training(toy, first_step=1).take(6))
    parts = [batches.for_training(toy, 'train', 16, DISTORTIONS['inception'], 4, 1, 1, machine=(index, machines),
                                  towers=towers).take(6 * towers) for index in range(machines)]
    parts = [list(part) for part in parts]
    for step, batch in enumerate(whole):
        found = [part[step * towers + tower] for part in parts for tower in range(towers)]
        for what in ('image', 'label', 'filename'):
            assert np.array_equal(np.concatenate([each[what] for each in found]), batch[what])


@pytest.mark.parametrize('machines', [2, 3, 9])
def test_several_machines_validate_every_record_once(toy, machines):
    """The shards hold 4 and 3 records; of nine machines, two have none."""
    parts = [teams.Team(index, machines).part(7) for index in range(machines)]
    found = [name for first, end in parts for batch in batches.for_evaluation(
        toy, 'validation', 16, 0.875, 2, part=(first, end)) for name in batch['filename'].numpy()]
    assert found == [name for batch in batches.for_evaluation(toy, 'validation', 16, 0.875, 4)
                     for name in batch['filename'].numpy()]
