"""OpenVINO's intermediate representation: pixels in, probabilities out, fast on a CPU and without TensorFlow."""

import tempfile
from pathlib import Path

import numpy as np

from finetune.console.lazy import LazyModule, tf
from finetune.exporting import network as networks
from finetune.exporting.network import Network

openvino = LazyModule('openvino', needs_tensorflow=False)


def write(network: Network, directory: Path) -> None:
    _write(network, directory, in_float16=False)


def write_float16(network: Network, directory: Path) -> None:
    """The weights alone: what runs them computes in float32."""
    _write(network, directory, in_float16=True)


def _write(network: Network, directory: Path, in_float16: bool) -> None:
    graph = networks.graph_of_pixels(network)
    with tempfile.TemporaryDirectory() as private:
        frozen = Path(private, 'frozen.pb')
        frozen.write_bytes(graph.graph.as_graph_def().SerializeToString())
        model = openvino.Core().read_model(frozen)  # Not convert_model: it reports its use to its makers.
    model.input().tensor.set_names({'pixels'})
    for name, tensor in tf.nest.pack_sequence_as(graph.structured_outputs, graph.outputs).items():
        model.output(tensor.name).tensor.set_names({name})
    model.set_rt_info(network.labels, ['model_info', 'labels'])
    openvino.save_model(model, directory / 'openvino/model.xml', compress_to_fp16=in_float16)


def of_views(model, image_size: int):
    """A model that was read from what `write` has written, without crop and resize: it takes `view`, float32
    [1, image_size, image_size, 3] in [0, 1].

    In them, each new size of a picture costs memory that is not given back, and twice the time.
    """
    ops = openvino.opset13
    view = ops.parameter([1, image_size, image_size, 3], np.float32, name='view')
    shape = openvino.PartialShape([-1, image_size, image_size, 3])
    resized = next((operation for operation in model.get_ordered_ops() if operation.get_type_name() == 'Reshape'
                    and operation.get_output_partial_shape(0) == shape), None)
    if resized is None:
        raise ValueError('no place where pixels have become a view')
    for reader in resized.output(0).get_target_inputs():
        reader.replace_source_output(view.output(0))
    return openvino.Model(model.results, [view])
