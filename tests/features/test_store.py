import collections
import csv
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from finetune.console import locks, teams
from finetune.console.errors import Error
from finetune.console.lazy import keras, tf
from finetune.evaluation import inference
from finetune.features import store
from finetune.features.store import Wanted
from finetune.models import classifier, cuts, engines, zoo
from finetune.pictures.views import DISTORTIONS
from finetune.records import batches, dataset, examples
from finetune.runs.run import Run
from tests import toy_net, toy_records, toy_run
from tests.test_train import assert_equal_variables, train_toy, variables

pytestmark = pytest.mark.kernels

HEAD_ONLY = ('--freeze_backbone', '--views=2')
LAST_BLOCK = ('--trainable_from=last', '--views=3', '--dropout=0.5')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return dataset.open_records(toy_records.write(tmp_path_factory.mktemp('toy') / 'records', train=21, validation=7))


@pytest.fixture
def directory(data):
    """Where training keeps features when nothing else is asked for; empty."""
    directory = data.directory / 'features'
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def toy_classifier(freeze_before: str = '', seed: int = 1, feature_layers=()):
    classifier.start_afresh(seed)
    model = classifier.build('toy', 4, image_size=16, seed=seed, feature_layers=feature_layers)
    if freeze_before:
        classifier.freeze_before(model, freeze_before)
    else:
        model.get_layer('backbone').trainable = False
    return model


def wanted(data, model, views: int = 1, **changes) -> Wanted:
    known = Wanted(data, 'train', cuts.parts(model), 16, 0.875, views, DISTORTIONS['inception'], 1, 'float16')
    return dataclasses.replace(known, **changes)


def whole_files(directory) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in directory.glob('*/features.npy')}


# The two parts of a network ----------------------------------------------------------------------------


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float16', 1e-3), ('float32', 1e-5)])
@pytest.mark.parametrize('freeze_before', ['', 'last'])
def test_kept_features_lead_to_the_logits_that_the_pictures_lead_to(data, tmp_path, freeze_before, dtype, tolerance):
    model = toy_classifier(freeze_before)
    model.get_layer('head').set_weights([50 * array for array in model.get_layer('head').get_weights()])
    kept = store.find_or_compute(wanted(data, model, dtype=dtype), tmp_path)
    from_features = inference.outputs(engines.function(cuts.parts(model).trained), kept.for_evaluation(4))
    pictures = batches.for_evaluation(data, 'train', 16, 0.875, 4)
    from_pictures = inference.outputs(engines.function(model), pictures)
    np.testing.assert_array_equal(from_features.labels, from_pictures.labels)
    np.testing.assert_allclose(from_features.logits, from_pictures.logits, atol=tolerance)
    assert np.ptp(from_pictures.logits, axis=0).max() > 10 * tolerance  # Else any logits would do.


@pytest.mark.parametrize(
    ('trainable_from', 'cut'),
    [('last', 'sum'), ('sum', 'sum'), ('right', 'first'), ('left', 'first'), ('first', None)])
def test_the_cut_is_the_last_place_that_everything_passes_through(monkeypatch, trainable_from, cut):
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.branching, 16, zoo.MINUS_ONE_TO_ONE))
    model = toy_classifier(trainable_from)
    parts = cuts.parts(model)
    assert (parts and parts.cut) == cut
    if parts:
        pictures = tf.random.stateless_uniform((3, 16, 16, 3), (1, 2))
        np.testing.assert_allclose(parts.trained(parts.frozen(pictures)), model(pictures), atol=1e-6)
        trained = {v.path for v in parts.trained.trainable_variables}
        assert trained == {v.path for v in model.trainable_variables}


@pytest.mark.parametrize(('read', 'trainable_from', 'cut'), [
    ('right,last', '', 'right,last'), ('right,last', 'last', 'first'), ('right,last', 'right', 'first'),
    ('sum,last', 'last', 'sum')])
def test_a_head_that_reads_several_layers_has_all_of_them_on_its_side_of_the_cut(
    monkeypatch, read, trainable_from, cut
):
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.branching, 16, zoo.MINUS_ONE_TO_ONE))
    model = toy_classifier(trainable_from, feature_layers=read.split(','))
    parts = cuts.parts(model)
    assert parts.cut == cut
    pictures = tf.random.stateless_uniform((3, 16, 16, 3), (1, 2))
    np.testing.assert_allclose(parts.trained(parts.frozen(pictures)), model(pictures), atol=1e-6)


def test_where_nothing_with_weights_trains_in_the_backbone_the_head_alone_does(monkeypatch):
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.branching, 16, zoo.MINUS_ONE_TO_ONE))
    model = toy_classifier('sum', feature_layers=('sum',))
    assert cuts.parts(model).head_only


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_is_frozen(data, directory, tmp_path):
    assert train_toy(data.directory, tmp_path / 'run', '--max_steps=1') == 0
    assert not directory.exists()


@pytest.mark.parametrize('trainable_from', ['', 'first_conv'])
def test_nothing_is_kept_where_all_that_does_not_train_never_could(trainable_from):
    """EfficientNet begins with the statistics of its pixels: kept behind those, all pictures would go undistorted."""
    model = classifier.build('toy_normalizing', 3, image_size=16)
    if trainable_from:
        classifier.freeze_before(model, trainable_from)
    assert cuts.parts(model) is None


@pytest.mark.parametrize(('flags', 'unused'), [
    (('--views=3', '--feature_dtype=float32'), ('--views', '--feature_dtype')),
    (('--freeze_backbone', '--distortion=inception', '--noflip'), ('--distortion', '--flip')),
    (('--freeze_backbone', '--views=2', '--distortion=inception'), ()),
    (('--freeze_backbone',), ())])
def test_flags_that_change_nothing_are_named(data, tmp_path, capfd, flags, unused):
    assert train_toy(data.directory, tmp_path / 'run', '--max_steps=1', *flags) == 0
    warnings = [line for line in capfd.readouterr().err.splitlines() if 'not used' in line]
    assert len(warnings) == len(unused) and all(name in line for name, line in zip(unused, warnings, strict=True))


def test_a_network_that_trains_from_its_first_layer_on_is_not_said_to_be_frozen(data, tmp_path, capfd):
    assert train_toy(data.directory, tmp_path / 'run', '--max_steps=1', '--trainable_from=first_conv') == 0
    assert 'frozen' not in capfd.readouterr().err


# The file ----------------------------------------------------------------------------------------------


def test_everything_that_decides_the_features_makes_another_key(data, tmp_path):
    known = wanted(data, toy_classifier(), views=2)
    other_records = toy_records.write(tmp_path / 'other', train=21, seed=7)
    changed = {
        'as it was': known,
        'records': dataclasses.replace(known, records=dataset.open_records(other_records)),
        'split': dataclasses.replace(known, split='validation'),
        'weights': dataclasses.replace(known, parts=cuts.parts(toy_classifier(seed=2))),
        'layers that the head reads': dataclasses.replace(
            known, parts=cuts.parts(toy_classifier(feature_layers=('last_conv', 'first_bn')))),
        'their order': dataclasses.replace(
            known, parts=cuts.parts(toy_classifier(feature_layers=('first_bn', 'last_conv')))),
        'cut': dataclasses.replace(known, parts=cuts.parts(toy_classifier('last'))),
        'image size': dataclasses.replace(known, image_size=20),
        'crop': dataclasses.replace(known, crop_fraction=1.0),
        'views': dataclasses.replace(known, views=3),
        'distortion': dataclasses.replace(known, distortion=DISTORTIONS['mild']),
        'seed': dataclasses.replace(known, seed=2),
        'dtype': dataclasses.replace(known, dtype='float32'),
        'engine': dataclasses.replace(known, engine='openvino'),
        'a mirrored view': dataclasses.replace(known, mirrored=True),
    }
    keys = {what: each.key for what, each in changed.items()}
    assert len(set(keys.values())) == len(keys), keys
    assert wanted(data, toy_classifier(), views=2).key == keys['as it was']
    try:
        keras.config.set_dtype_policy('mixed_bfloat16')
        assert dataclasses.replace(known).key not in keys.values()
    finally:
        keras.config.set_dtype_policy('float32')


def test_seed_and_distortion_do_not_matter_where_only_the_central_view_is_kept(data):
    known = wanted(data, toy_classifier())
    assert dataclasses.replace(known, seed=2, distortion=DISTORTIONS['mild']).key == known.key


def test_a_killed_pass_goes_on_where_it_stopped_and_ends_with_the_same_bytes(data, tmp_path, monkeypatch, capfd):
    known = wanted(data, toy_classifier(), views=2)
    monkeypatch.setattr(store, 'PASS_BATCH', 8)
    monkeypatch.setattr(store, 'SECONDS_BETWEEN_NOTES', 0)
    store.find_or_compute(known, tmp_path / 'whole')
    rows_of, computed = store._rows, []

    def killed(*args):
        for rows in rows_of(*args):
            computed.append(len(rows))
            yield rows
            if len(computed) == 3:
                raise SystemExit

    monkeypatch.setattr(store, '_rows', killed)
    with pytest.raises(SystemExit):
        store.find_or_compute(known, tmp_path / 'parts')
    assert not whole_files(tmp_path / 'parts')
    with (tmp_path / 'parts' / known.key / 'partial.npy').open('ab') as file:
        file.write(b'what was written after the last note')
    capfd.readouterr()
    store.find_or_compute(known, tmp_path / 'parts')
    assert '12 are done' in capfd.readouterr().err and sum(computed) == 21
    assert whole_files(tmp_path / 'parts') == whole_files(tmp_path / 'whole')


@pytest.mark.parametrize('lost', ['deleted', 'cut short'])
def test_a_note_of_progress_counts_for_nothing_without_the_rows_that_it_counted(data, tmp_path, monkeypatch, lost):
    """Rows of zeros would stand for them, with the label of the background."""
    known = wanted(data, toy_classifier())
    store.find_or_compute(known, tmp_path / 'whole')
    monkeypatch.setattr(store, 'PASS_BATCH', 4)

    def killed_after(batches: int, seconds_between_notes: int) -> None:
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(store, 'SECONDS_BETWEEN_NOTES', seconds_between_notes)
            rows_of = store._rows
            patch.setattr(store, '_rows', lambda *args: _ending_after(batches, rows_of(*args)))
            store.find_or_compute(known, tmp_path / 'parts')

    killed_after(4, seconds_between_notes=0)
    partial = tmp_path / 'parts' / known.key / 'partial.npy'
    partial.unlink() if lost == 'deleted' else os.truncate(partial, 300)
    killed_after(2, seconds_between_notes=10)
    assert not partial.with_name('progress.json').exists()  # It vouches for rows that a power cut leaves.
    store.find_or_compute(known, tmp_path / 'parts')
    assert whole_files(tmp_path / 'parts') == whole_files(tmp_path / 'whole')


def _ending_after(batches: int, rows):
    yield from itertools.islice(rows, batches)
    raise SystemExit


def test_records_that_are_built_again_during_a_pass_are_not_kept_as_those_before(tmp_path, monkeypatch):
    data = dataset.open_records(toy_records.write(tmp_path / 'records', train=21))
    known, rows_of = wanted(data, toy_classifier()), store._rows

    def replaced(*args):
        yield from rows_of(*args)
        shutil.rmtree(data.directory)
        toy_records.write(data.directory, train=21, seed=7)

    monkeypatch.setattr(store, '_rows', replaced)
    with pytest.raises(Error, match='built again'):
        store.find_or_compute(known, tmp_path / 'features')
    assert not whole_files(tmp_path / 'features')


def test_rows_of_other_records_do_not_count_when_the_right_ones_are_back(tmp_path, monkeypatch):
    data = dataset.open_records(toy_records.write(tmp_path / 'records', train=21))
    known, rows_of = wanted(data, toy_classifier()), store._rows
    store.find_or_compute(known, tmp_path / 'whole')
    monkeypatch.setattr(store, 'PASS_BATCH', 4)
    monkeypatch.setattr(store, 'SECONDS_BETWEEN_NOTES', 0)

    def replaced(*args):
        for number, rows in enumerate(rows_of(*args)):
            if number == 2:
                data.directory.rename(tmp_path / 'away')
                toy_records.write(data.directory, train=21, seed=7)
            yield rows if number < 2 else np.zeros_like(rows)

    with monkeypatch.context() as patch, pytest.raises(Error, match='built again'):
        patch.setattr(store, '_rows', replaced)
        store.find_or_compute(known, tmp_path / 'parts')
    shutil.rmtree(data.directory)
    (tmp_path / 'away').rename(data.directory)
    store.find_or_compute(known, tmp_path / 'parts')
    assert whole_files(tmp_path / 'parts') == whole_files(tmp_path / 'whole')


def test_a_pass_over_fewer_records_than_there_should_be_is_not_kept(data, tmp_path, monkeypatch):
    rows_of = store._rows
    monkeypatch.setattr(store, '_rows', lambda *args: itertools.islice(rows_of(*args), 0))
    with pytest.raises(Error, match='0 of 21 records'):
        store.find_or_compute(wanted(data, toy_classifier()), tmp_path)
    assert not whole_files(tmp_path)


def test_a_file_that_is_cut_short_is_computed_again(data, tmp_path):
    known = wanted(data, toy_classifier())
    store.find_or_compute(known, tmp_path)
    before = whole_files(tmp_path)
    os.truncate(tmp_path / known.key / 'features.npy', 500)
    store.find_or_compute(known, tmp_path)
    assert whole_files(tmp_path) == before


def test_the_second_of_two_runs_at_once_waits_for_the_first(data, tmp_path, monkeypatch, capfd):
    known = wanted(data, toy_classifier())
    place = tmp_path / known.key
    place.mkdir()
    with locks.held(place / 'lock', pytest.fail):
        second = threading.Thread(target=store.find_or_compute, args=(known, tmp_path))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        store._compute(known, place, None)
    second.join()
    err = capfd.readouterr().err
    assert 'waiting' in err and err.count('Computing features of') == 1 and 'computed before' in err


def test_a_full_disk_is_said_before_anything_is_computed(data, tmp_path, monkeypatch):
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, 100))
    with pytest.raises(Error, match='--feature_dir'):
        store.find_or_compute(wanted(data, toy_classifier()), tmp_path)


def test_outputs_too_large_for_float16_are_said(data, tmp_path):
    model = toy_classifier()
    conv = model.get_layer('backbone').get_layer('last_conv')
    conv.set_weights([1e6 * np.abs(array) for array in conv.get_weights()])
    with pytest.raises(Error, match='--feature_dtype=float32'):
        store.find_or_compute(wanted(data, model), tmp_path)


# Pictures that were known before ------------------------------------------------------------------------


def numbered(directory, **splits: list[tuple[int, int]]) -> dataset.Records:
    """Records of (number, label) by split: a number is a picture."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    made = []
    for name, pictures in splits.items():
        writer = dataset.ShardWriter(directory / dataset.shard_name(name, 0, 1))
        for number, label in pictures:
            writer.write(examples.encode_example(
                toy_run.picture(number), 'JPEG', 20, 24, label, toy_run.LABELS[label], b'%d.jpg' % number))
        counts = tuple(sum(label == each for _, each in pictures) for label in range(4))
        made.append(dataset.Split(name, len(pictures), counts, (writer.close(),)))
    (directory / dataset.MANIFEST).write_text(json.dumps(dataset.manifest(toy_run.LABELS, made, 'JPEG', {})))
    return dataset.open_records(directory)


def of_class(label: int, numbers) -> list[tuple[int, int]]:
    return [(number, label) for number in numbers]


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many rows each pass computed."""
    counts, computed_of = [], store._computed

    def counting(wanted, asked, threads):
        counts.append(int(asked.sum()))
        return computed_of(wanted, asked, threads)

    monkeypatch.setattr(store, '_computed', counting)
    return counts


def in_full(known: Wanted, directory) -> bytes:
    """What a pass gives that knows nothing of before."""
    store.find_or_compute(known, directory)
    return (directory / known.key / 'features.npy').read_bytes()


@pytest.mark.parametrize('engine', engines.ENGINES)
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_of_records_with_new_photos_only_those_are_computed(tmp_path, computed, capfd, dtype, engine):
    model = toy_classifier()
    before = numbered(tmp_path / 'records', train=of_class(1, range(40)), validation=of_class(2, range(50, 60)))
    for split in before.splits:
        store.find_or_compute(wanted(before, model, split=split, dtype=dtype, engine=engine), tmp_path / 'features')
    data = numbered(tmp_path / 'records', train=of_class(1, [*range(20), 100, 101, *range(20, 38), 102, 39]))
    capfd.readouterr()
    known = wanted(data, model, dtype=dtype, engine=engine)
    store.find_or_compute(known, tmp_path / 'features')
    assert computed == [40, 10, 3] and '39 of 42 were computed before' in capfd.readouterr().err
    assert (tmp_path / 'features' / known.key / 'features.npy').read_bytes() == in_full(known, tmp_path / 'apart')


def test_a_picture_that_moved_to_another_split_or_class_keeps_its_features_but_not_its_label(tmp_path, computed):
    model = toy_classifier()
    before = numbered(tmp_path / 'records', train=of_class(1, range(9)), validation=of_class(2, range(20, 25)))
    for split in before.splits:
        store.find_or_compute(wanted(before, model, split=split), tmp_path / 'features')
    data = numbered(tmp_path / 'records', train=[(20, 2), (3, 3), (4, 1)], validation=[(8, 1), (21, 2)])
    for split in data.splits:
        known = wanted(data, model, split=split)
        kept = store.find_or_compute(known, tmp_path / 'features')
        assert (tmp_path / 'features' / known.key / 'features.npy').read_bytes() == in_full(known, tmp_path / 'apart')
        assert list(kept.rows['label']) == {'train': [2, 3, 1], 'validation': [1, 2]}[split]
    assert computed == [9, 5, 0, 3, 0, 2]  # What lies apart knows nothing of before.


def test_what_differs_in_more_than_its_records_is_not_taken_over(tmp_path, computed):
    before, model = numbered(tmp_path / 'records', train=of_class(1, range(9))), toy_classifier()
    store.find_or_compute(wanted(before, model), tmp_path / 'features')
    data = numbered(tmp_path / 'records', train=of_class(1, range(8)))
    for changes in ({'crop_fraction': 1.0}, {'dtype': 'float32'}, {'parts': cuts.parts(toy_classifier(seed=2))}):
        store.find_or_compute(dataclasses.replace(wanted(data, model), **changes), tmp_path / 'features')
    assert computed == [9, 8, 8, 8]


def test_distorted_views_are_computed_again_as_they_depend_on_the_place(tmp_path, computed):
    model = toy_classifier()
    for count in (9, 8):
        data = numbered(tmp_path / 'records', train=of_class(1, range(count)))
        known = wanted(data, model, views=2)
        store.find_or_compute(known, tmp_path / 'features')
    assert computed == [9, 8]
    assert (tmp_path / 'features' / known.key / 'features.npy').read_bytes() == in_full(known, tmp_path / 'apart')


@pytest.mark.parametrize('harm', [
    'rows cut short', 'digests cut short', 'no digests', 'digests of others', 'facts of others', 'facts of no use',
    'a bit turned', 'a file in the way'])
def test_what_is_damaged_is_not_taken_over(tmp_path, computed, harm):
    model, features = toy_classifier(), tmp_path / 'features'
    before = numbered(tmp_path / 'records', train=of_class(1, range(9)))
    store.find_or_compute(wanted(before, model), features)
    place, = features.iterdir()
    if harm == 'rows cut short':
        os.truncate(place / 'features.npy', 500)
    elif harm == 'digests cut short':
        os.truncate(place / 'pictures.npy', 150)
    elif harm == 'no digests':  # As it was once written.
        (place / 'pictures.npy').unlink()
    elif harm == 'digests of others':
        np.save(place / 'pictures.npy', np.load(place / 'pictures.npy')[:5])
    elif harm == 'facts of others':
        place.rename(features / '0123456789abcdef')
    elif harm == 'facts of no use':
        (place / 'features.json').write_text('[1]')
    elif harm == 'a bit turned':
        with (place / 'features.npy').open('r+b') as file:
            file.seek(-3, os.SEEK_END)
            last = file.read(1)
            file.seek(-3, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
    elif harm == 'a file in the way':
        shutil.rmtree(place)
        place.write_text('no directory')
    data = numbered(tmp_path / 'records', train=of_class(1, range(1, 9)))
    known = wanted(data, model)
    store.find_or_compute(known, features)
    assert computed == [9, 1 if harm == 'a bit turned' else 8]
    assert (features / known.key / 'features.npy').read_bytes() == in_full(known, tmp_path / 'apart')


def test_a_pass_that_is_stopped_amid_known_pictures_goes_on_with_the_same_bytes(tmp_path, monkeypatch):
    model, features = toy_classifier(), tmp_path / 'features'
    before = numbered(tmp_path / 'records', train=of_class(1, range(30)))
    store.find_or_compute(wanted(before, model), features)
    data = numbered(tmp_path / 'records', train=of_class(2, [*range(20), *range(50, 60), *range(20, 30)]))
    known, rows_of = wanted(data, model), store._rows
    monkeypatch.setattr(store, 'PASS_BATCH', 4)
    for stops_after in (2, 4):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(store, 'SECONDS_BETWEEN_NOTES', 0)
            patch.setattr(store, '_rows', lambda *args, after=stops_after: _ending_after(after, rows_of(*args)))
            store.find_or_compute(known, features)
        shutil.rmtree(features / wanted(before, model).key, ignore_errors=stops_after == 4)  # The second has no help.
    store.find_or_compute(known, features)
    assert (features / known.key / 'features.npy').read_bytes() == in_full(known, tmp_path / 'apart')


KILLED = """
import sys
from pathlib import Path
from finetune.features import earlier, store
from finetune.models import zoo
from finetune.records import dataset
from tests import toy_net
from tests.features.test_store import toy_classifier, wanted
zoo.NETS['toy'] = zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE)

def stop(*args):
    print('there', flush=True)
    sys.stdin.read()

if sys.argv[2] == 'rows':
    store.SECONDS_BETWEEN_NOTES, store.PASS_BATCH, rows_of = 0, 4, store._rows
    def rows(*args):
        for number, rows in enumerate(rows_of(*args)):
            yield rows
            if number == 4:
                stop()
    store._rows = rows
else:
    write, earlier.write_pictures = earlier.write_pictures, lambda *args: (write(*args), stop())
data = dataset.open_records(Path(sys.argv[1], 'records'))
store.find_or_compute(wanted(data, toy_classifier()), Path(sys.argv[1], 'features'))
"""


@pytest.mark.slow
@pytest.mark.parametrize('where', ['rows', 'digests'])
def test_after_a_kill_nothing_is_trusted_that_is_not_whole(tmp_path, where, computed):
    """Amid the rows, or with the digests written and the rows not yet renamed."""
    model, features = toy_classifier(), tmp_path / 'features'
    store.find_or_compute(wanted(numbered(tmp_path / 'records', train=of_class(1, range(20))), model), features)
    data = numbered(tmp_path / 'records', train=of_class(1, [*range(15), *range(30, 45)]))
    process = subprocess.Popen([sys.executable, '-c', KILLED, str(tmp_path), where], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == 'there\n'
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known, computed[:] = wanted(data, model), []
    assert not (features / known.key / 'features.npy').exists()
    other = wanted(numbered(tmp_path / 'other', train=of_class(1, range(30, 45))), model)
    store.find_or_compute(other, features)
    store.find_or_compute(known, features)
    assert computed == [15, 0]
    for each in (known, other):
        assert (features / each.key / 'features.npy').read_bytes() == in_full(each, tmp_path / 'apart')


def test_records_that_are_replaced_while_known_rows_are_taken_over_are_said(tmp_path, monkeypatch):
    model, features = toy_classifier(), tmp_path / 'features'
    store.find_or_compute(wanted(numbered(tmp_path / 'records', train=of_class(1, range(9))), model), features)
    data, rows_of = numbered(tmp_path / 'records', train=of_class(1, range(12))), store._rows

    def replaced(*args):
        numbered(data.directory, train=of_class(1, range(3)))
        yield from rows_of(*args)

    monkeypatch.setattr(store, '_rows', replaced)
    with pytest.raises(Error, match='built again'):
        store.find_or_compute(wanted(data, model), features)
    assert len(whole_files(features)) == 1


def test_features_of_other_records_are_forgotten_but_for_what_is_being_computed(tmp_path):
    model, features = toy_classifier(), tmp_path / 'features'
    store.forget_others(features, numbered(tmp_path / 'records', train=of_class(1, range(4))))  # Nothing is there.
    keys = []
    for count in (4, 5, 6):
        data = numbered(tmp_path / 'records', train=of_class(1, range(count)), validation=of_class(1, [9]))
        for split in data.splits:
            keys.append(wanted(data, model, split=split).key)
            store.find_or_compute(wanted(data, model, split=split), features)
    (features / 'of_mine').mkdir()
    (features / 'of_mine/features.npy').write_text('mine')
    (features / keys[1] / 'of_mine').write_text('mine')
    (features / keys[2] / 'partial.npy').write_text('')
    (features / keys[2] / 'progress.json').write_text('')
    with locks.held(features / keys[3] / 'lock', pytest.fail):
        store.forget_others(features, data)
        left = {path.name: sorted(file.name for file in path.iterdir()) for path in features.iterdir()}
    whole = ['features.json', 'features.npy', 'pictures.npy']
    assert left == {'of_mine': ['features.npy'], keys[1]: ['of_mine'], keys[3]: sorted([*whole, 'lock']),
                    keys[4]: whole, keys[5]: whole}


# Training on them --------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def kept(data, tmp_path_factory):
    toy_network = pytest.MonkeyPatch()
    toy_network.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
    computed = store.find_or_compute(wanted(data, toy_classifier(), views=3), tmp_path_factory.mktemp('features'))
    toy_network.undo()
    return computed


def batches_of(kept, steps, **changes):
    dataset = kept.for_training(**{'batch_size': 4, 'seed': 1, **changes}).take(steps)
    return np.concatenate([batch['image'].numpy() for batch in dataset])


def test_what_is_read_from_the_disk_is_what_memory_holds(kept, monkeypatch):
    def batches_of(first_step):
        return list(kept.for_training(8, seed=3, first_step=first_step).take(5).as_numpy_iterator())

    in_memory = batches_of(0)
    monkeypatch.setattr(store, 'IN_MEMORY', 0)
    for first_step in (0, 3):
        for ours, theirs in zip(batches_of(first_step), in_memory[first_step:], strict=False):
            np.testing.assert_array_equal(ours['image'], theirs['image'])
            np.testing.assert_array_equal(ours['label'], theirs['label'])


ROOM_FOR_FEATURES = """
import numpy as np
from pathlib import Path
from finetune.console import files
from finetune.features import store

def memory():
    return sum(int(line.split()[1]) * 1024 for line in Path('/proc/self/status').read_text().splitlines()
               if line.startswith(('RssAnon', 'RssFile')))

row = np.dtype([('label', '<i4'), ('features', '<f2', (1, 1280))])
rows = np.lib.format.open_memmap('features.npy', 'w+', row, (40_000,))
rows.flush()
files.let_go(rows)
next(iter(store.Features(rows[:100]).for_training(32, 0)))
before = memory()
batches = iter(store.Features(rows).for_training(32, 0))
for _ in range(100):
    next(batches)
print((memory() - before) / rows.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='it asks Linux how much memory it has')
def test_features_that_train_lie_in_memory_once(tmp_path):
    """They took three times their file: a tensor, the copy that it was made of, and the pages of the file."""
    child = subprocess.run([sys.executable, '-c', ROOM_FOR_FEATURES], cwd=tmp_path, capture_output=True, text=True,
                           env=os.environ | {'PYTHONPATH': str(Path(__file__).parents[2])})
    assert child.returncode == 0, child.stderr
    assert 0.5 < float(child.stdout) < 1.2


def test_an_epoch_is_every_picture_once_in_one_of_its_views(kept):
    rows = kept.rows['features'].astype(np.float32)
    numbers = {one.tobytes(): (record, view) for record, row in enumerate(rows) for view, one in enumerate(row)}
    assert len(numbers) == 63
    seen = [numbers[row.tobytes()] for row in batches_of(kept, 21)]  # 84 pictures: four epochs.
    epochs = [seen[21 * epoch:21 * (epoch + 1)] for epoch in range(4)]
    for epoch in epochs:
        assert sorted(record for record, _ in epoch) == list(range(21))
    assert {view for _, view in seen} == {0, 1, 2}
    assert epochs[0] != epochs[1] and sorted(epochs[0]) != sorted(epochs[1])  # Another order, other views.


def test_any_step_can_be_made_again_alone(kept):
    whole = batches_of(kept, 20)
    np.testing.assert_array_equal(batches_of(kept, 7, first_step=13), whole[52:])
    assert not np.array_equal(batches_of(kept, 20, seed=2), whole)


@pytest.mark.parametrize('what', [HEAD_ONLY, LAST_BLOCK])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(data, directory, tmp_path, what):
    assert train_toy(data.directory, tmp_path / 'whole', '--max_steps=7', *what) == 0
    for steps in (4, 7):
        assert train_toy(data.directory, tmp_path / 'parts', f'--max_steps={steps}', *what) == 0
    assert_equal_variables(variables(tmp_path / 'whole'), variables(tmp_path / 'parts'), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize('what', [HEAD_ONLY, LAST_BLOCK])
def test_one_and_two_towers_agree(data, directory, tmp_path, what):
    for towers in (1, 2):
        assert train_toy(data.directory, tmp_path / str(towers), '--max_steps=5', f'--num_gpus={towers}', *what,
                         '--dropout=0') == 0
    assert_equal_variables(variables(tmp_path / '1'), variables(tmp_path / '2'), atol=1e-6, rtol=1e-5)


def test_a_second_run_uses_what_the_first_computed(data, directory, tmp_path, monkeypatch, capfd):
    train_toy(data.directory, tmp_path / 'first', '--max_steps=1', *HEAD_ONLY)
    err = capfd.readouterr().err
    assert 'Computing features of 21 pictures once (train, last_conv, 2 views' in err and '--feature_cache=off' in err
    monkeypatch.setattr(store, '_rows', None)
    flags = (*HEAD_ONLY, '--max_steps=2', '--initial_learning_rate=0.1')
    assert train_toy(data.directory, tmp_path / 'second', *flags) == 0
    assert capfd.readouterr().err.count('Using features computed before') == 2
    assert len(whole_files(directory)) == 2


@pytest.mark.slow
def test_the_network_that_is_saved_is_whole_and_as_good_as_was_measured(data, directory, tmp_path):
    train_toy(data.directory, tmp_path / 'run', '--max_steps=4', *LAST_BLOCK)
    loaded = Run(tmp_path / 'run').load('last')
    pictures = batches.for_evaluation(data, 'validation', 16, 0.875, 4)
    outputs = inference.outputs(engines.function(loaded.model), pictures)
    loss = -tf.nn.log_softmax(outputs.logits).numpy()[np.arange(7), outputs.labels].mean()
    with (tmp_path / 'run/metrics.csv').open() as file:
        *_, last = csv.DictReader(file)
    assert float(last['validation_loss']) == pytest.approx(loss, abs=1e-3)


@pytest.mark.slow
def test_without_the_cache_the_same_things_train(data, directory, tmp_path):
    for cache in ('on', 'off'):
        flags = ('--max_steps=4', '--trainable_from=last', f'--feature_cache={cache}')
        train_toy(data.directory, tmp_path / cache, *flags)
    assert len(whole_files(directory)) == 2  # Of the first run.
    on, off = (Run(tmp_path / cache).load('last', averages=False).model for cache in ('on', 'off'))
    for one, other, first in zip(on.weights, off.weights, toy_classifier('last').weights, strict=True):
        moved = [not np.array_equal(each, first) for each in (one, other)]
        assert moved == [one.trainable] * 2, one.path


def test_what_features_depend_on_is_kept_beside_them(data, directory, tmp_path):
    train_toy(data.directory, tmp_path / 'run', '--max_steps=1', *HEAD_ONLY)
    facts = [json.loads(path.read_text()) for path in directory.glob('*/features.json')]
    assert sorted(each['split'] for each in facts) == ['train', 'validation']
    assert {each['records'] for each in facts} == {data.fingerprint}


# Several machines --------------------------------------------------------------------------------------


class ThreadTeam:
    """A machine of a team of threads."""

    def __init__(self, index: int, count: int, barrier: threading.Barrier, board: dict):
        self.index, self.count, self.is_chief, self.barrier, self.board = index, count, index == 0, barrier, board

    part = teams.Team.part

    def gathered(self, value) -> list:
        self.barrier.wait()
        self.board[self.index] = value
        self.barrier.wait()
        return [self.board[index] for index in range(self.count)]

    def told(self, value=None):
        return self.gathered(value)[0]

    def met(self) -> None:
        self.gathered(None)


def computed_by_machines(known: Wanted, directories: list) -> list:
    """What each of them finds, in its own directory."""
    barrier, board, found = threading.Barrier(len(directories), timeout=60), {}, {}

    def work(index):
        try:
            team = ThreadTeam(index, len(directories), barrier, board)
            found[index] = store.find_or_compute(known, directories[index], team=team).rows.tobytes()
        except BaseException as error:
            found[index] = error
            barrier.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(directories))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(len(directories))]


@pytest.mark.parametrize(('views', 'machines'), [(1, 2), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_several_machines_make_the_file_of_one(data, tmp_path, views, machines):
    known = wanted(data, toy_classifier(), views=views)
    expected = store.find_or_compute(known, tmp_path / 'one').rows.tobytes()
    assert computed_by_machines(known, [tmp_path / 'all'] * machines) == [expected] * machines
    assert whole_files(tmp_path / 'all') == whole_files(tmp_path / 'one')
    names = [sorted(path.name for path in (tmp_path / place / known.key).iterdir()) for place in ('one', 'all')]
    assert names[0] == names[1]
    assert computed_by_machines(known, [tmp_path / 'all'] * machines) == [expected] * machines  # As it is there.


@pytest.mark.slow
def test_machines_that_do_not_see_the_same_directory_compute_all_of_it_each(data, tmp_path):
    known = wanted(data, toy_classifier())
    expected = store.find_or_compute(known, tmp_path / 'one').rows.tobytes()
    assert computed_by_machines(known, [tmp_path / 'a', tmp_path / 'b']) == [expected] * 2
    (tmp_path / 'b' / known.key / 'features.npy').unlink()
    assert computed_by_machines(known, [tmp_path / 'a', tmp_path / 'b']) == [expected] * 2


@pytest.mark.slow
def test_several_machines_go_on_where_a_killed_pass_stopped(data, tmp_path, monkeypatch):
    known = wanted(data, toy_classifier(), views=3)
    expected = store.find_or_compute(known, tmp_path / 'one').rows.tobytes()
    monkeypatch.setattr(store, 'SECONDS_BETWEEN_NOTES', 0)
    computed, asked_for = store._computed, []

    def dying(wanted, asked, threads):
        yield from itertools.islice(computed(wanted, asked, threads), 1)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(store, '_computed', dying)
        assert all(isinstance(each, BaseException) for each in computed_by_machines(known, [tmp_path / 'all'] * 2))

    def counting(wanted, asked, threads):
        asked_for.append(int(asked.sum()))
        return computed(wanted, asked, threads)

    monkeypatch.setattr(store, '_computed', counting)
    assert computed_by_machines(known, [tmp_path / 'all'] * 2) == [expected] * 2
    assert sum(asked_for) < len(data.splits['train'].per_class) * 7 and sum(asked_for) > 0


@pytest.mark.parametrize('machines', [2, 4])
def test_several_machines_get_together_the_features_that_one_gets(data, tmp_path, machines):
    kept = store.find_or_compute(wanted(data, toy_classifier(), views=3), tmp_path)
    parts = [list(kept.for_training(8, 1, 3, (index, machines)).take(5)) for index in range(machines)]
    for step, batch in enumerate(kept.for_training(8, 1, 3).take(5)):
        for what in ('image', 'label'):
            assert np.array_equal(np.concatenate([part[step][what] for part in parts]), batch[what])
    halves = [list(kept.for_evaluation(4, part)) for part in ((0, 9), (9, 21))]
    labels = np.concatenate([batch['label'] for half in halves for batch in half])
    assert np.array_equal(labels, kept.rows['label'])
