"""SavedModel, for TensorFlow and TensorFlow Serving: files or pixels in, labels out."""

from pathlib import Path

from finetune.console.lazy import tf
from finetune.exporting import network as networks
from finetune.exporting import pixels
from finetune.exporting.network import Network

FILES = 'savedmodel/1'  # As TensorFlow Serving has it: NAME/VERSION.


def write(network: Network, directory: Path) -> None:
    size, crop_fraction = network.image_size, network.crop_fraction

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)], autograph=False)
    def of_views(views):  # A function of its own, so that its graph is saved once.
        return _ranked(network, views)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, 'files')], autograph=False)
    def of_files(files):
        return of_views(pixels.views_of_files(files, size, crop_fraction))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, 'pixels')], autograph=False)
    def of_pixels(pixels_):
        return of_views(pixels.views_of_pixels(pixels_, size, crop_fraction))

    module = tf.Module()
    # These alone, with the model in a closure: a Keras model inside would save each weight twice.
    module.weights = [weight.value for weight in network.model.weights]
    tf.saved_model.save(module, str(directory / FILES),
                        {'serving_default': of_files, 'serving_pixels': of_pixels})


def _ranked(network: Network, views) -> dict:
    """Labels and probabilities with the most probable first; `logits` stay in the order of the labels."""
    found = networks.answers(network, views)
    order = tf.math.top_k(found['logits'], len(network.labels)).indices
    return {**found, 'labels': tf.gather(tf.constant(network.labels), order),
            'probabilities': tf.gather(found['probabilities'], order, batch_dims=1)}
