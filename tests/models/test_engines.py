import importlib.util
import types

import numpy as np
import pytest

from finetune.console.errors import UsageError
from finetune.console.lazy import tf
from finetune.models import classifier, cuts, engines
from finetune.runs import recipe as recipes
from finetune.runs.state import build_model
from finetune.training import pretrained

pytestmark = pytest.mark.kernels

needs_openvino = pytest.mark.skipif(not importlib.util.find_spec('openvino'), reason='openvino is not installed')


@pytest.mark.slow
@needs_openvino
def test_every_engine_answers_as_the_network_in_training_does():
    """With weights that have learned something: a new network says nearly the same of every picture."""
    typed = {'pretrained': 'sample', 'fine_tune': True}
    recipe = recipes.plan(typed, pretrained.network(typed), 100)
    model = build_model(recipe, 4)
    pretrained.restore(model, pretrained.read(recipe), ('background', 'a', 'b', 'c'), fine_tune=True)
    pictures = tf.random.stateless_uniform((5, 96, 96, 3), (1, 2))
    ours = engines.function(model)(pictures).numpy()
    assert np.ptp(ours, axis=0).max() > 1e-3
    for engine in engines.FLOAT32:
        np.testing.assert_allclose(engines.frozen(model, engine)(pictures), ours, atol=1e-5, err_msg=engine)


@needs_openvino
def test_openvino_gives_the_outputs_of_mixed_precision_as_they_are():
    """Its own come as bfloat16 that is labelled float16: other numbers, and finite ones."""
    classifier.start_afresh(seed=1, mixed_precision=True)
    backbone = classifier.build('toy', 4, image_size=16).get_layer('backbone')
    pictures = tf.random.stateless_uniform((5, 16, 16, 3), (1, 2))
    ours, theirs = (tf.cast(engines.frozen(backbone, engine)(pictures), tf.float32) for engine in engines.FLOAT32)
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(theirs, ours, atol=0.02)


@needs_openvino
def test_any_batch_size_runs():
    logits_of = engines.frozen(classifier.build('toy', 4, image_size=16), 'openvino')
    assert [logits_of(tf.zeros((size, 16, 16, 3))).shape[0] for size in (1, 7, 32)] == [1, 7, 32]


def test_without_openvino_tensorflow_is_chosen_and_asking_for_it_names_what_to_install(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, 'find_spec', lambda name: None)
    assert engines.choose(None) == 'tensorflow'
    with pytest.raises(UsageError, match='pip install openvino'):
        engines.choose('openvino')


@needs_openvino
def test_features_are_computed_in_bfloat16_only_where_the_processor_has_it(monkeypatch):
    import openvino

    class Processor:
        def __init__(self, own):
            self.own = own

        def get_property(self, device, name):
            assert (device, name) == ('CPU', 'INFERENCE_PRECISION_HINT')
            return self.own

    for own, chosen in ((openvino.Type.bf16, 'openvino_bfloat16'), (openvino.Type.f32, 'openvino')):
        stand_in = types.SimpleNamespace(Type=openvino.Type, Core=lambda own=own: Processor(own))
        monkeypatch.setattr(engines, 'openvino', stand_in)
        assert engines.choose_for_features(None) == chosen
        assert engines.choose_for_features('openvino') == 'openvino'
        assert engines.choose_for_features(None, mixed_precision=True) == 'tensorflow'


@needs_openvino
def test_bfloat16_gives_nearly_the_same_features():
    model = classifier.build('toy', 4, image_size=16)
    pictures = np.random.default_rng(0).random((5, 16, 16, 3), np.float32)
    exact, rounded = (engines.frozen(model, engine)(pictures) for engine in ('openvino', 'openvino_bfloat16'))
    np.testing.assert_allclose(rounded, exact, atol=0.02)


def test_openvino_is_chosen_only_where_it_can_do_the_work(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, 'find_spec', lambda name: object())
    monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind=None: [])
    assert engines.choose(None) == 'openvino'
    assert engines.choose('tensorflow') == 'tensorflow'
    assert engines.choose(None, towers=2) == 'tensorflow'
    assert engines.choose(None, mixed_precision=True) == 'tensorflow'
    with pytest.raises(UsageError, match='--num_gpus'):
        engines.choose('openvino', towers=2)


@pytest.mark.parametrize('engine', engines.FLOAT32)
def test_one_pass_gives_logits_and_the_features_that_the_head_reads(engine):
    classifier.start_afresh(seed=1)
    model = classifier.build('toy', 4, image_size=16)
    pictures = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    logits, features = engines.frozen(cuts.with_features(model), engine)(pictures)
    np.testing.assert_allclose(logits, model(pictures), atol=1e-5)
    np.testing.assert_allclose(model.get_layer('head')(features), model(pictures), atol=1e-5)


@pytest.mark.parametrize('trainable_from', ['', 'last_conv'])
def test_the_part_that_trains_gives_the_features_of_its_head_too(trainable_from):
    """Where the head alone trains they are its input."""
    classifier.start_afresh(seed=1)
    model = classifier.build('toy', 4, image_size=16)
    if trainable_from:
        classifier.freeze_before(model, trainable_from)
    else:
        model.get_layer('backbone').trainable = False
    parts = cuts.parts(model)
    pictures = np.random.default_rng(0).random((3, 16, 16, 3)).astype(np.float32)
    stored = parts.frozen(pictures)
    logits, features = engines.function(cuts.with_features(parts.trained))(stored)
    np.testing.assert_allclose(logits, model(pictures), atol=1e-5)
    np.testing.assert_allclose(features, cuts.with_features(model)(pictures)[1], atol=1e-5)
