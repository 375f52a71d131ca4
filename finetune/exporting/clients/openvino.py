"""Answers pictures with OpenVINO."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import openvino
from PIL import Image, ImageOps

labels = json.loads(Path('model.json').read_text())['labels']
exact = {'INFERENCE_PRECISION_HINT': 'f32'}  # Else CPUs that can compute in bfloat16 do, and answer worse.
network = openvino.compile_model('openvino/model.xml', 'CPU', exact)


def answer(file: bytes) -> dict:
    """What is on a picture, a JPEG, PNG or WebP file; `probabilities` are in the order of the labels."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file), formats=('JPEG', 'PNG', 'WEBP'))).convert('RGB')
    pixels = np.asarray(picture)
    found = network({'pixels': pixels[None]})
    return {output.any_name: found[output][0] for output in network.outputs}


for path in sys.argv[1:]:
    found = answer(Path(path).read_bytes())
    best = found['probabilities'].argmax()
    print(path, labels[best], found['probabilities'][best], 'unknown' if found.get('unknown', False) else '', sep='\t')
