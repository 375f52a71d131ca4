"""Answers pictures with TensorFlow."""

import sys
from pathlib import Path

import tensorflow as tf

model = tf.saved_model.load('savedmodel/1')
network = model.signatures['serving_default']


def answer(file: bytes) -> dict:
    """What is on a picture, a JPEG, PNG or GIF file: the most probable label stands first."""
    return {name: values[0].numpy() for name, values in network(files=tf.constant([file])).items()}


for path in sys.argv[1:]:
    found = answer(Path(path).read_bytes())
    is_unknown = bool(found.get('unknown', False))
    print(path, found['labels'][0].decode(), found['probabilities'][0], 'unknown' if is_unknown else '', sep='\t')
