"""Answers pictures with ONNX Runtime."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

labels = json.loads(Path('model.json').read_text())['labels']
network = onnxruntime.InferenceSession('onnx/model.onnx', providers=['CPUExecutionProvider'])
names = [output.name for output in network.get_outputs()]


def answer(file: bytes) -> dict:
    """What is on a picture, a JPEG, PNG or WebP file; `probabilities` are in the order of the labels."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file), formats=('JPEG', 'PNG', 'WEBP'))).convert('RGB')
    pixels = np.asarray(picture)
    return {name: found[0] for name, found in zip(names, network.run(None, {'pixels': pixels[None]}), strict=True)}


for path in sys.argv[1:]:
    found = answer(Path(path).read_bytes())
    best = found['probabilities'].argmax()
    print(path, labels[best], found['probabilities'][best], 'unknown' if found.get('unknown', False) else '', sep='\t')
