"""What runs a network forward where nothing of it trains: TensorFlow, or OpenVINO, which is faster on a CPU."""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from finetune.console.errors import UsageError
from finetune.console.lazy import LazyModule, keras, tf

FLOAT32 = ('tensorflow', 'openvino')
ENGINES = (*FLOAT32, 'openvino_bfloat16')
HELP = ('what runs layers that do not train (default: openvino on a CPU if it is installed; for features that are '
        'kept, in bfloat16 where the processor has it: in half the time, and a head on them is as good)')
openvino = LazyModule('openvino')


def choose(asked: str | None, mixed_precision: bool = False, towers: int = 1) -> str:
    """The engine that was asked for, or the fastest that is installed. OpenVINO is for one tower on a CPU."""
    installed = importlib.util.find_spec('openvino') is not None
    by_openvino = asked is not None and asked.startswith('openvino')
    if by_openvino and not installed:
        raise UsageError(f'--engine={asked} needs a package that is not installed: pip install openvino')
    if by_openvino and towers > 1:
        raise UsageError(f'--engine={asked} uses all cores of the CPU as one tower: --num_gpus=1')
    on_a_cpu = towers == 1 and not tf.config.list_physical_devices('GPU')
    return asked or ('openvino' if installed and on_a_cpu and not mixed_precision else 'tensorflow')


def choose_for_features(asked: str | None, mixed_precision: bool = False) -> str:
    """The same for what is kept to train on: where nobody asked, in bfloat16 if OpenVINO itself would take that here.

    Only processors that compute in it are twice as fast; others would imitate it.
    """
    engine = choose(asked, mixed_precision)
    if asked is None and engine == 'openvino':
        own = openvino.Core().get_property('CPU', 'INFERENCE_PRECISION_HINT')
        return 'openvino_bfloat16' if own == openvino.Type.bf16 else engine
    return engine


def function(model) -> Callable:
    """images [b, h, w, c] -> the outputs of the model, by TensorFlow; one graph for all batch sizes, living weights."""
    return _graph(lambda images: model(images, training=False), model)


def frozen(model, engine: str, towers: int = 1) -> Callable:
    """The same with the weights of this moment, by the engine. OpenVINO's cannot be part of a larger graph."""
    if engine.startswith('openvino'):
        return _with_openvino(model, 'bf16' if engine.endswith('bfloat16') else 'f32')
    if towers == 1 and _gains_by_constants(model):
        return _with_constants(model)
    return function(model)


def _gains_by_constants(model) -> bool:
    """Whether TensorFlow is clearly faster once batch norms are folded into the convolutions before them.

    Behind a cheap depthwise convolution a batch norm takes a good part of the time: MobileNetV2 gains a quarter to a
    third on a CPU. Behind others it does not: ResNet-50 and Inception-v3 gain less than the folding takes.
    """
    on_a_cpu = not tf.config.list_physical_devices('GPU')
    return on_a_cpu and any(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in _layers(model))


def _layers(model) -> Iterator:
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, 'layers') else (layer,)


def _graph(outputs_of: Callable, model):
    shape = (None, *model.input_shape[1:])
    return tf.function(
        outputs_of, input_signature=[tf.TensorSpec(shape, tf.float32)], reduce_retracing=True, autograph=False)


def _with_constants(model):
    """The model's graph with its weights as constants."""
    def outputs_of(images):
        with weights_as_constants(model):
            # As float32: OpenVINO hands bfloat16 out under the name of float16.
            return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), model(images, training=False))

    return _graph(outputs_of, model).get_concrete_function()


@contextlib.contextmanager
def weights_as_constants(model) -> Iterator[None]:
    """In a graph under construction; the constants are made in it: made outside, they would become inputs of it."""
    with tf.init_scope():
        values = [(variable, variable.numpy()) for variable in model.variables]
    with keras.StatelessScope(state_mapping=[(variable, tf.constant(value)) for variable, value in values]):
        yield


def _with_openvino(model, precision: str) -> Callable:
    core, graph = openvino.Core(), _with_constants(model)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, 'frozen.pb')
        path.write_bytes(graph.graph.as_graph_def().SerializeToString())
        # Not openvino.convert_model: it takes seconds, and reports its use to its makers.
        network = core.compile_model(
            core.read_model(path), 'CPU', {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': precision})
    outputs = [network.output(tensor.name) for tensor in graph.outputs]  # By name: it has an order of its own.

    def outputs_of(images):
        found = network(np.asarray(images))
        return tf.nest.pack_sequence_as(graph.structured_outputs, [tf.constant(found[output]) for output in outputs])

    return outputs_of
