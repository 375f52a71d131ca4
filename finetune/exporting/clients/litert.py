"""Answers pictures with LiteRT."""

import io
import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

facts = json.loads(Path('model.json').read_text())
network = Interpreter('litert/model.tflite').get_signature_runner()
is_int8 = facts['precision'] == 'int8'


def resizing(length: int) -> np.ndarray:
    """[image_size, length]: crops centrally and resizes, by a triangle wide enough to see every pixel."""
    start = int((length - length * facts['crop_fraction']) / 2)
    kept, size = length - 2 * start, facts['image_size']
    places = np.arange(length) - start + 0.5
    centres = (np.arange(size)[:, None] + 0.5) * kept / size
    weights = np.maximum(0, 1 - np.abs(places - centres) / max(kept / size, 1)) * ((places > 0) & (places < kept))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def answer(file: bytes) -> dict:
    """What is on a picture, a JPEG, PNG or WebP file; `probabilities` are in the order of the labels."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file), formats=('JPEG', 'PNG', 'WEBP'))).convert('RGB')
    pixels = np.asarray(picture, np.float32)
    height, width, _ = pixels.shape
    view = resizing(width) @ np.tensordot(resizing(height), pixels, axes=1)
    found = network(image=view[None].round().astype(np.uint8) if is_int8 else view[None] / 255)
    return {name: values[0] / np.float32(256) if is_int8 else values[0] for name, values in found.items()}


for path in sys.argv[1:]:
    found = answer(Path(path).read_bytes())
    best = found['probabilities'].argmax()
    is_unknown = bool(found.get('unknown', False))
    print(path, facts['labels'][best], found['probabilities'][best], 'unknown' if is_unknown else '', sep='\t')
