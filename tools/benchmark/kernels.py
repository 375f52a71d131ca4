"""What TensorFlow's kernels make of MobileNetV2, each in processes of its own: they are chosen once, at its import.

    python -m tools.benchmark.kernels       {what: pictures a second} with the kernels of this process, as JSON
"""

import json
import os
from collections.abc import Callable, Iterator

import numpy as np

from finetune.console.lazy import keras, tf
from finetune.models import classifier, engines
from tools.benchmark.place import Place, printed_by
from tools.benchmark.turns import rate, spread

BATCH, SIDE, CLASSES = 32, 224, 6
BATCHES = 5  # Timed, after one that is not.
TURNS = 3
EIGEN = {'TF_ENABLE_ONEDNN_OPTS': '0'}
ONEDNN = {  # By what is said of it; the second is oneDNN as a processor without AVX-512 has it.
    'oneDNN': {'TF_ENABLE_ONEDNN_OPTS': '1'},
    'oneDNN held to AVX2': {'TF_ENABLE_ONEDNN_OPTS': '1', 'ONEDNN_MAX_CPU_ISA': 'AVX2'},
}


def kernels(place: Place) -> Iterator[dict]:
    """oneDNN's kernels against Eigen's, with all that this processor has and with AVX2 alone."""
    turns = [{name: _measured_with(environment) for name, environment in {'Eigen': EIGEN, **ONEDNN}.items()}
             for _ in range(TURNS)]
    for name in ONEDNN:
        for what in turns[0][name]:
            ours, theirs = (np.array([turn[side][what] for turn in turns]) for side in (name, 'Eigen'))
            yield {'what': f'mobilenet_v2, {what}: {name}, against Eigen', 'unit': 'pictures/s', 'n': TURNS,
                   'ours': spread(ours), 'theirs': spread(theirs), 'ratio': spread(ours / theirs)}


def _measured_with(environment: dict[str, str]) -> dict[str, float]:
    return json.loads(printed_by('tools.benchmark.kernels', environment=environment))


def measure() -> dict[str, float]:
    """Pictures a second of each pass, with the kernels of this process."""
    pictures = tf.constant(np.random.default_rng(0).random((BATCH, SIDE, SIDE, 3), np.float32))
    model = _model(batch_norm_trains=False)
    passes = {
        'forward': engines.function(model),
        'forward, weights as constants': engines.frozen(model, 'tensorflow'),
        'training step, batch norm still': _step(model),
        'training step, batch norm trains': _step(_model(batch_norm_trains=True)),
    }
    return {what: round(_rate(work, pictures), 1) for what, work in passes.items()}


def _model(batch_norm_trains: bool):
    classifier.start_afresh(seed=0)
    return classifier.build('mobilenet_v2', CLASSES, image_size=SIDE, batch_norm_trains=batch_norm_trains)


def _step(model) -> Callable:
    """A step of all layers, by plain descent."""
    optimizer = keras.optimizers.SGD(1e-6)
    optimizer.build(model.trainable_variables)
    labels = tf.zeros(BATCH, tf.int32)

    @tf.function
    def step(pictures):
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            logits, = classifier.training_logits(model, pictures)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return loss

    return step


def _rate(work: Callable, pictures) -> float:
    def some() -> int:
        for _ in range(BATCHES):
            work(pictures).numpy()  # Waits for it.
        return BATCHES * BATCH

    work(pictures).numpy()
    return rate(some)()


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    print(json.dumps(measure()))
