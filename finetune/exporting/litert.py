"""LiteRT, once TensorFlow Lite, for phones and small machines: a view in, probabilities out."""

from pathlib import Path

from finetune.console.lazy import tf
from finetune.exporting import network as networks
from finetune.exporting.network import Network
from finetune.models import engines


def write(network: Network, directory: Path) -> None:
    size = network.image_size

    @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.float32, 'image')], autograph=False)
    def of_view(image):
        with engines.weights_as_constants(network.model):
            return networks.answers(network, image)

    module = tf.Module()
    module.serving_default = of_view  # Without it the file would have no signature.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([of_view.get_concrete_function()], module)
    (directory / 'litert/model.tflite').write_bytes(converter.convert())
