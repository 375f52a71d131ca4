"""What every format holds: a run as one function, from what the network looks at to what `finetune predict` says."""

import dataclasses

import numpy as np

from finetune.console.lazy import tf
from finetune.evaluation import unknown
from finetune.exporting import pixels
from finetune.models import activation, cuts, engines
from finetune.runs.run import Loaded, Run
from finetune.runs.trust import Trust


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained classifier in float32, and the values that make answers of its outputs."""

    model: object  # Views [b, image_size, image_size, 3] in [0, 1] -> (logits, features, *the maps of these).
    head: object  # The layer of it that makes logits of features.
    treatment: dict  # What the gate is told to make of a picture before it is seen.
    image_size: int
    crop_fraction: float
    names: dict[int, str]  # The labels that it may answer, by its outputs.
    trust: Trust | None
    keep: float  # The share of real pictures that get their label.
    typical: np.ndarray | None = None  # Views [n, image_size, image_size, 3] that numbers of 8 bits are scaled by.

    @property
    def labels(self) -> list[str]:
        return list(self.names.values())

    @property
    def temperature(self) -> float:
        return self.trust.temperature if self.trust else 1.0

    @property
    def can_abstain(self) -> bool:
        return self.trust is not None and self.trust.can_abstain

    @property
    def shows_evidence(self) -> bool:
        return activation.have_places(self.model.outputs[2:])


def of(run: Run, loaded: Loaded, keep: float) -> Network:
    """`loaded` computes in float32 (see `Run.load`)."""
    recipe, treatment = run.recipe, run.records.get('treatment', {})  # Runs of old do not say.
    return Network(cuts.with_features_and_maps(loaded.model), activation.head_of(loaded.model), treatment,
                   recipe.image_size, recipe.crop_fraction, run.answerable, loaded.trust, keep)


def answers(network: Network, views) -> dict:
    """What `predict` says of views [b, size, size, 3]; a graph operation.

    `logits` and `probabilities` [b, labels]; where the network knows of places, `evidence` [b, h, w, labels]; where the
    run knows what its pictures look like, `familiarity` [b] and `unknown` [b].
    """
    outputs, features, *maps = network.model(views, training=False)
    numbers = tf.constant(list(network.names), tf.int32)
    likely = tf.nn.softmax(outputs / network.temperature)  # Over all outputs, as in evaluation.
    logits = tf.gather(outputs, numbers, axis=1)
    found = {'logits': logits, 'probabilities': tf.gather(likely, numbers, axis=1)}
    if network.shows_evidence:
        found['evidence'] = activation.evidence(maps, _of_labels(network, network.head.kernel))
    if not network.can_abstain:
        return found
    stranger = _how_many_are_stranger(network.trust, features, outputs)
    is_unknown = stranger < _enough(network)
    if 0 in network.names:  # The background is as good a name for none of the others.
        is_unknown = tf.logical_and(is_unknown, tf.argmax(logits, axis=1) != 0)
    familiarity = tf.cast(1 + stranger, tf.float32) / (len(network.trust.scores) + 1)
    return {**found, 'familiarity': familiarity, 'unknown': is_unknown}


def probabilities(network: Network, views) -> dict:
    """The `probabilities` of `answers` alone, of the labels that may be answered; a graph operation.

    Without the outputs that are switched off, whose logit of -100 would leave few of 256 numbers to the others.
    """
    _, features, *_ = network.model(views, training=False)
    kernel, bias = (_of_labels(network, weights) / network.temperature
                    for weights in (network.head.kernel, network.head.bias))
    return {'probabilities': tf.nn.softmax(tf.matmul(features, kernel) + bias)}


def _of_labels(network: Network, weights):
    return tf.gather(tf.convert_to_tensor(weights), list(network.names), axis=-1)


def graph_of_pixels(network: Network):
    """uint8 [b, h, w, 3] of any size -> answers, with the weights as constants."""
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, 'pixels')], autograph=False)
    def of_pixels(images):
        with engines.weights_as_constants(network.model):
            return answers(network, pixels.views_by_products(images, network.image_size, network.crop_fraction))

    return of_pixels.get_concrete_function()


def _how_many_are_stranger(trust: Trust, features, logits):
    """Of the real pictures whose scores the run keeps, by the score of `unknown.familiarity`: int32 [b]."""
    lengths = tf.sqrt(tf.reduce_sum(tf.square(features), axis=1, keepdims=True))
    directions = features / tf.maximum(lengths, unknown.LEAST_LENGTH)
    scores = tf.reduce_max(tf.matmul(directions, tf.constant(trust.class_means.T)), axis=1)
    if trust.energy_weight:
        scores += trust.energy_weight * tf.reduce_logsumexp(logits, axis=1)
    are_stranger = tf.constant(trust.scores)[None, :] < scores[:, None]
    return tf.reduce_sum(tf.cast(are_stranger, tf.int32), axis=1)


def _enough(network: Network) -> int:
    """Where fewer real pictures are stranger, a picture is unknown; found with the arithmetic of `predict`."""
    real = len(network.trust.scores)
    return int(np.sum((1 + np.arange(real + 1)) / (real + 1) <= 1 - network.keep))
