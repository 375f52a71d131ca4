"""LiteRT, once TensorFlow Lite, for phones and small machines: a view in, probabilities out."""

from pathlib import Path

import numpy as np

from finetune.console import streams
from finetune.console.lazy import tf
from finetune.exporting import mediapipe
from finetune.exporting import network as networks
from finetune.exporting.network import Network
from finetune.models import engines

FILE, OF_MEDIAPIPE = 'litert/model.tflite', 'litert/mediapipe.tflite'


def write(network: Network, directory: Path) -> None:
    _write(_converter(network, networks.answers), network, directory)


def write_float16(network: Network, directory: Path) -> None:
    """The weights alone: what runs them computes in float32, or in float16 where it can."""
    converter = _converter(network, networks.answers)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    _write(converter, network, directory)


def write_int8(network: Network, directory: Path) -> None:
    """Numbers of 8 bits from pixels to probabilities, each scaled by what the network's typical views make of it."""
    views = _from_black_to_white(network.typical)
    converter = _converter(network, networks.probabilities)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({'image': view[None]} for view in views)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    (directory / FILE).write_bytes(mediapipe.described(_converted(converter), network.labels))


def _converter(network: Network, said):
    size = network.image_size

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.float32, 'image')], autograph=False)
    def of_view(image):
        with engines.weights_as_constants(network.model):
            return said(network, image)

    module = tf.Module()
    module.serving_default = of_view  # Without it the file would have no signature.
    return tf.lite.TFLiteConverter.from_concrete_functions([of_view.get_concrete_function()], module)


def _write(converter, network: Network, directory: Path) -> None:
    written = _converted(converter)
    (directory / FILE).write_bytes(written)
    (directory / OF_MEDIAPIPE).write_bytes(
        mediapipe.described(mediapipe.with_one_output(written, 'probabilities'), network.labels))


def _converted(converter) -> bytes:
    with streams.silent_stderr():  # It tells of its own age.
        return bytes(converter.convert())


def _from_black_to_white(views: np.ndarray) -> np.ndarray:
    """The first one with a pixel of each, so that the bytes 0 to 255 stand for 0 to 1, whatever was seen."""
    views = views.copy()
    views[0, 0, 0], views[0, 0, 1] = 0, 1
    return views
