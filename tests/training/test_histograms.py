"""`--histograms`, read back from the event file as TensorBoard reads it."""

import numpy as np
import pytest

from finetune import train
from finetune.console.lazy import keras, tf
from finetune.models import classifier, cuts
from finetune.records import batches, dataset
from finetune.runs import summaries
from finetune.runs.run import Run
from finetune.training import histograms
from tests import toy_records


@pytest.fixture
def data(tmp_path):
    return toy_records.write(tmp_path / 'records')


def train_toy(data, directory, *flags) -> None:
    assert train.main([f'--data_dir={data}', f'--train_dir={directory}', '--model=toy', '--batch_size=8',
                       '--optimizer=momentum', '--epochs=2', '--moving_average_decay=0', *flags]) == 0


def events(directory) -> dict[tuple[str, int], tuple[str, np.ndarray]]:
    """By tag and step: which plugin shows it, and the values."""
    found = {}
    for path in directory.glob('events.out.tfevents.*'):
        for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(serialized)
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                found[value.tag, event.step] = plugin, tf.make_ndarray(value.tensor)
    return found


@pytest.mark.slow
def test_each_epoch_shows_how_weights_are_spread_and_what_share_of_each_relu_is_zero(data, tmp_path):
    train_toy(data, tmp_path / 'run', '--histograms')
    found, model = events(tmp_path / 'run'), Run(tmp_path / 'run').load('last').model
    kernel = model.get_layer('backbone').get_layer('first_conv').kernel.numpy()
    plugin, buckets = found['weights/first_conv/kernel', 6]
    assert plugin == 'histograms' and buckets[:, 2].sum() == kernel.size
    assert (buckets[0, 0], buckets[-1, 1]) == (pytest.approx(kernel.min()), pytest.approx(kernel.max()))
    np.testing.assert_array_equal(buckets[1:, 0], buckets[:-1, 1])  # Each bucket begins where the last one ends.
    assert ('weights/logits/bias', 3) in found

    shown = next(iter(batches.for_evaluation(dataset.open_records(data), 'validation', 16, 0.875, 8)))['image']
    first = model.get_layer('backbone').get_layer('first_conv')(2 * shown - 1).numpy()
    assert 0 < (first == 0).mean() < 1
    plugin, share = found['sparsity/first_conv', 6]
    assert plugin == 'scalars' and share == pytest.approx((first == 0).mean(), abs=1e-5)
    plugin, buckets = found['sparsity_of_channels/first_conv', 6]
    assert plugin == 'histograms' and buckets[:, 2].sum() == 8


@pytest.mark.slow
def test_to_look_changes_nothing(data, tmp_path):
    flags = ('--dropout=0.5', '--batch_norm=train')
    train_toy(data, tmp_path / 'unseen', *flags)
    train_toy(data, tmp_path / 'seen', *flags, '--histograms')
    unseen, seen = (Run(tmp_path / name).load('last').model.get_weights() for name in ('unseen', 'seen'))
    for one, other in zip(unseen, seen, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(tag.startswith('weights/') for tag, _ in events(tmp_path / 'unseen'))


@pytest.mark.parametrize(('cut', 'names'), [('last_conv', ['last_conv']), (None, [])])
def test_of_a_network_that_trains_from_kept_features_only_the_trained_part_is_looked_at(cut, names):
    model = classifier.build('toy', 3, image_size=16)
    model.get_layer('backbone').trainable = bool(cut)
    if cut:
        classifier.freeze_before(model, cut)
    trained = cuts.parts(model).trained
    kept = np.ones((2, *trained.input_shape[1:]), np.float32)
    assert list(histograms.zeros_behind_relus(trained)(kept)) == names


@pytest.mark.parametrize('activation', ['relu', 'relu6', 'layer', 'layer6'])
def test_a_relu_is_found_however_it_is_written(activation):
    pixels = keras.Input((4, 4, 3))
    layer = {'layer': keras.layers.ReLU, 'layer6': lambda: keras.layers.ReLU(6.0)}.get(
        activation, lambda: keras.layers.Activation(activation))
    x = keras.layers.Conv2D(2, 1, activation='softmax')(pixels)
    body = keras.Model(pixels, layer()(x), name='backbone')
    images = keras.Input((4, 4, 3))
    found = histograms.zeros_behind_relus(keras.Model(images, body(images)))(np.zeros((1, 4, 4, 3), np.float32))
    assert len(found) == 1 and next(iter(found.values())).shape == (2,)


@pytest.mark.parametrize('values', [[1.0, 1.0 + 1e-7], [0.5, np.nan, 2.0], [np.inf], [], [3.0]])
def test_weights_that_hardly_differ_or_are_no_numbers_are_shown_too(tmp_path, values):
    finite = np.isfinite(values).sum()
    buckets = summaries.Summaries(tmp_path)._buckets(np.array(values, np.float32)).numpy()
    assert buckets[:, 2].sum() == finite and np.isfinite(buckets).all()
