import numpy as np
import pytest

from finetune.console.errors import UsageError
from finetune.console.lazy import tf
from finetune.evaluation import drawings
from finetune.pictures.mixing import Mixing, mixed, partners
from finetune.pictures.views import DISTORTIONS
from finetune.records import batches, dataset
from finetune.runs import recipe
from finetune.training import loop
from tests import toy_records
from tests.test_train import assert_equal_variables, train_toy, variables
from tools import show_records

SEEDS = np.stack([np.arange(400), np.arange(400) + 7], axis=1)
BLACK_AND_WHITE = np.tile(np.float32([0, 1]), 400)[:, None, None, None] * np.ones((32, 32, 3), np.float32)


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    return dataset.open_records(toy_records.write(tmp_path_factory.mktemp('toy') / 'records', train=10))


@pytest.mark.parametrize('mixing', [Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(0.4, 1.0)])
def test_a_picture_shows_as_much_of_itself_as_its_label_counts(mixing):
    images, shares = mixed(BLACK_AND_WHITE, mixing, SEEDS)
    white = tf.reduce_mean(images, axis=[1, 2, 3]).numpy()
    np.testing.assert_allclose(white[1::2], shares[1::2], atol=1e-5)
    np.testing.assert_allclose(white[::2], 1 - shares[::2], atol=1e-5)
    np.testing.assert_array_equal(shares[::2], shares[1::2])
    assert 0 <= shares.numpy().min() < 0.3 and 0.9 < shares.numpy().max() <= 1


def test_mixup_is_drawn_from_beta():
    """Of Beta(a, a) the mean is 1/2 and the variance 1 / (8 a + 4)."""
    for alpha in (0.2, 1.0):
        _, shares = mixed(BLACK_AND_WHITE, Mixing(mixup=alpha), SEEDS)
        assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
        assert np.var(shares) == pytest.approx(1 / (8 * alpha + 4), rel=0.15)


def test_mixup_is_of_whole_pictures_and_cutmix_of_one_rectangle():
    of_mixup, of_cutmix, of_both = (mixed(BLACK_AND_WHITE, mixing, SEEDS)[0].numpy()[::2, :, :, 0] for mixing in (
        Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(0.4, 1.0)))
    assert all(len(np.unique(image)) == 1 for image in of_mixup)
    for image in of_cutmix:
        down, across = image.any(axis=1), image.any(axis=0)
        assert set(np.unique(image)) <= {0.0, 1.0} and (image == np.outer(down, across)).all()
    like_mixup = sum(0 < image.mean() < 1 and len(np.unique(image)) == 1 for image in of_both)
    assert 120 < like_mixup < 280  # Half of 400 pairs.


def test_partners_are_neighbours():
    np.testing.assert_array_equal(partners(tf.constant([1, 2, 3, 4])), [2, 1, 4, 3])


def training(toy, first_step=0, machine=(0, 1)):
    return batches.for_training(
        toy, 'train', 16, DISTORTIONS['mild'], 4, 1, first_step, machine=machine, mixing=Mixing(0.4, 1.0))


def test_a_training_that_goes_on_sees_the_mixtures_that_it_would_have_seen(toy):
    *_, third, fourth = training(toy).take(4)  # Ten pictures: the third batch is of two epochs.
    for batch, again in zip((third, fourth), training(toy, first_step=2).take(2), strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(value, again[name])
    assert (third['share'].numpy() < 1).any()


def test_two_machines_see_the_mixtures_of_one(toy):
    for whole, *parts in zip(*(training(toy, machine=machine).take(3) for machine in ((0, 1), (0, 2), (1, 2))),
                             strict=True):
        for name, value in whole.items():
            np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts]))


@pytest.mark.slow
def test_a_mixed_picture_is_asked_for_both_labels(tmp_path, monkeypatch):
    """And the run that was stopped goes on to the same bits."""
    asked = []
    monkeypatch.setattr(loop, 'cross_entropy', lambda logits, labels, *rest: asked.append(labels) or (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
    flags = '--mixup=0.4', '--cutmix=1', '--batch_size=4', '--nokeep_best'
    data = toy_records.write(tmp_path / 'records', train=12, validation=4)
    train_toy(data, tmp_path / 'whole', '--max_steps=6', *flags)
    assert len(asked) >= 2 and asked[0] is not asked[1]
    train_toy(data, tmp_path / 'parts', '--max_steps=3', *flags)
    train_toy(data, tmp_path / 'parts', '--max_steps=6', *flags)
    assert_equal_variables(variables(tmp_path / 'parts'), variables(tmp_path / 'whole'))


@pytest.mark.slow
def test_the_sheet_of_what_a_training_sees_names_both_labels(tmp_path, monkeypatch):
    data, sheet = toy_records.write(tmp_path / 'records', train=6), tmp_path / 'sheet.png'
    lines, drawn = [], drawings.contact_sheet
    monkeypatch.setattr(drawings, 'contact_sheet', lambda tiles, title: lines.extend(
        tile.lines for tile in tiles) or drawn(tiles, title))
    flags = f'--data_dir={data}', f'--output={sheet}', '--as_trained', '--mixup=1', '--image_size=32', '--count=4'
    assert show_records.main(list(flags)) == 0 and sheet.exists()
    shares = [[int(line.partition(' %')[0]) for line in (own, other)] for own, other, _ in lines]
    assert len(shares) == 4 and all(99 <= own + other <= 101 for own, other in shares)


@pytest.mark.parametrize('typed, sentence', [
    ({'trainable_from': 'block_13'}, '--feature_cache=off'), ({'batch_size': 33}, 'has to be even')])
def test_what_cannot_be_mixed_is_refused_with_the_way_out(typed, sentence):
    with pytest.raises(UsageError, match=sentence):
        recipe.plan({'model': 'mobilenet_v2', 'pretrained': 'w.h5', 'mixup': 0.2} | typed, None, 100)
