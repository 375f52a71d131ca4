"""ONNX, which many runtimes read, also in browsers: pixels in, probabilities out."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.lazy import LazyModule, tf
from finetune.console.terminal import listed
from finetune.exporting import network as networks
from finetune.exporting.network import Network

OPSET = 18
NOT_CONVERTED = {'Erfc', 'PartitionedCall', 'StatefulPartitionedCall'}  # As ConvNeXt has them.
convert = LazyModule('tf2onnx.convert')


def write(network: Network, directory: Path) -> None:
    """Raises Error for a network with operations that cannot be converted."""
    graph = networks.graph_of_pixels(network)
    refused = sorted({operation.type for operation in graph.graph.get_operations()} & NOT_CONVERTED)
    if refused:  # Now: the conversion takes a minute, and leaves a file that nothing reads.
        raise Error(f'--format=onnx: this network computes with {listed(refused)}, which tf2onnx does not convert. '
                    'Choose other formats.')
    names = {tensor.name: name
             for name, tensor in tf.nest.pack_sequence_as(graph.structured_outputs, graph.outputs).items()}
    # Of the graph, not of the function: constants that the function has from outside would become inputs.
    with _without_advice():
        model, _ = convert.from_graph_def(
            graph.graph.as_graph_def(), input_names=['pixels:0'], output_names=list(names), opset=OPSET,
            tensors_to_rename={'pixels:0': 'pixels'} | names)
    (directory / 'onnx/model.onnx').write_bytes(model.SerializeToString())


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """The converter calls functions of TensorFlow that warn of their age."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
