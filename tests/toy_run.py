"""Records of tiny pictures, and a run of the toy network that knows nothing: both written in milliseconds."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.models.averages import Averages
from finetune.records import dataset, examples
from finetune.runs import recipe as recipes
from finetune.runs.run import Run
from finetune.runs.state import State, build_model

LABELS = ('background', 'blue', 'green', 'red')


def picture(seed: int, height: int = 20, width: int = 24) -> bytes:
    """A JPEG of noise."""
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(data, 'JPEG', quality=95)
    return data.getvalue()


def write_records(directory: Path, labels=LABELS, **per_class: list[int]) -> dataset.Records:
    """`per_class` gives for each split the number of pictures of every label, the background's first."""
    directory.mkdir(parents=True)
    splits = [_write_split(directory, name, counts, labels) for name, counts in per_class.items()]
    (directory / dataset.MANIFEST).write_text(json.dumps(dataset.manifest(labels, splits, 'JPEG', {})))
    return dataset.open_records(directory)


def _write_split(directory: Path, name: str, counts: list[int], labels) -> dataset.Split:
    writers = [dataset.ShardWriter(directory / dataset.shard_name(name, index, 2)) for index in range(2)]
    order = [label for label, count in enumerate(counts) for _ in range(count)]
    for place, label in enumerate(order):
        filename = f'{labels[label]}/{place}.jpg'.encode()
        example = examples.encode_example(picture(place), 'JPEG', 20, 24, label, labels[label], filename)
        writers[place % 2].write(example)
    return dataset.Split(name, len(order), tuple(counts), tuple(writer.close() for writer in writers))


def start_run(directory: Path, labels=LABELS, per_class=(0, 9, 9, 9), treatment=(), **typed) -> Run:
    recipe = recipes.plan({'model': 'toy', 'image_size': 32, **typed}, None, sum(per_class))
    facts = {'fingerprint': '0' * 64, 'per_class': list(per_class), 'treatment': dict(treatment)}
    return Run.create(directory, recipe, tuple(labels), facts)


def save_checkpoint(run: Run, step: int, seed: int = 0) -> None:
    """Random weights, twice as large as their averages, so that one can tell which of them were used."""
    model = build_model(run.recipe, len(run.labels))
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.3, variable.shape))
    state = State(model, averages=Averages(model, run.recipe.moving_average_decay))
    for weight in state.averages.weights:
        weight.assign(2 * weight)
    state.step.assign(step)
    run.save(state)
