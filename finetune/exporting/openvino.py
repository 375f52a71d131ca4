"""OpenVINO's intermediate representation: pixels in, probabilities out, fast on a CPU and without TensorFlow."""

import tempfile
from pathlib import Path

from finetune.console.lazy import LazyModule, tf
from finetune.exporting import network as networks
from finetune.exporting.network import Network

openvino = LazyModule('openvino')


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
