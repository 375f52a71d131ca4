"""OpenVINO's intermediate representation: pixels in, probabilities out, fast on a CPU and without TensorFlow."""

import tempfile
from pathlib import Path

from finetune.console.lazy import LazyModule, tf
from finetune.exporting import network as networks
from finetune.exporting import pixels
from finetune.exporting.network import Network
from finetune.models import engines

openvino = LazyModule('openvino')


def write(network: Network, directory: Path) -> None:
    graph = graph_of_pixels(network)
    with tempfile.TemporaryDirectory() as private:
        frozen = Path(private, 'frozen.pb')
        frozen.write_bytes(graph.graph.as_graph_def().SerializeToString())
        model = openvino.Core().read_model(frozen)  # Not convert_model: it reports its use to its makers.
    model.input().tensor.set_names({'pixels'})
    for name, tensor in tf.nest.pack_sequence_as(graph.structured_outputs, graph.outputs).items():
        model.output(tensor.name).tensor.set_names({name})
    model.set_rt_info(network.labels, ['model_info', 'labels'])
    openvino.save_model(model, directory / 'openvino/model.xml', compress_to_fp16=False)


def graph_of_pixels(network: Network):
    """uint8 [b, h, w, 3] of any size -> answers, with the weights as constants."""
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, 'pixels')], autograph=False)
    def of_pixels(images):
        with engines.weights_as_constants(network.model):
            return networks.answers(
                network, pixels.views_by_products(images, network.image_size, network.crop_fraction))

    return of_pixels.get_concrete_function()
