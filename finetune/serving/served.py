"""What is served, behind one face: a run, or an export, with TensorFlow only where that computes."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.console.errors import Error, Reject, UsageError
from finetune.console.lazy import keras, tf
from finetune.console.terminal import count, printable
from finetune.evaluation import metrics
from finetune.exporting import card, openvino
from finetune.models import activation, cuts, engines
from finetune.pictures import quick_views, views
from finetune.predicting.answering import answerer, can_abstain
from finetune.records.dataset import check_treatment
from finetune.runs.run import Run

MOST_FACTS = 64 << 20  # Bytes of a model.json.
IN_FLOAT32 = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}


@dataclass(frozen=True)
class Said:
    """Of one picture: what an `Answer` holds, with every label, and what each place says for each label."""

    answer: dict
    evidence: np.ndarray | None = None  # float32 [h, w, labels]
    view: np.ndarray | None = None  # float32 [size, size, 3], which that is about.


@dataclass(frozen=True)
class Served:
    name: str  # A part of paths: letters, digits, . _ -
    version: str
    about: str
    labels: list[str]
    can_abstain: bool
    can_explain: bool
    treatment: dict  # What `gate` is told.
    prepared: Callable[[bytes], np.ndarray]  # A picture that was let in -> what the network is given; Reject.
    said: Callable[[np.ndarray, bool], Said]  # (what it is given, whether evidence is wanted); one at a time.


def simple(name: str) -> str:
    """The name as a part of a path that nothing needs to escape."""
    return re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'model'


# A run ----------------------------------------------------------------------------------------------------------------


def of_run(path: Path, checkpoint: str, averages: bool, keep: float | None, engine: str | None) -> Served:
    """As `finetune predict` answers with these flags; `path` is a run's or a project's."""
    run = Run(path)
    loaded, names, recipe = run.load(checkpoint, averages), run.answerable, run.recipe
    engine = engines.choose(engine, recipe.mixed_precision)
    answers_of = answerer(loaded, names, engine, len(names), keep)
    evidence_of = _evidence(loaded.model, list(names), engine)
    views_of = views.viewer(recipe.image_size, recipe.crop_fraction)

    def prepared(encoded: bytes) -> np.ndarray:
        try:
            return views_of(tf.constant([encoded], tf.string)).numpy()[0]
        except tf.errors.InvalidArgumentError:  # Its text tells of TensorFlow and not of the picture.
            raise Reject('corrupt', 'its decoder refuses it') from None

    def said(view: np.ndarray, explained: bool) -> Said:
        answer, = answers_of(view[None])
        return Said(answer, evidence_of(view), view) if explained and evidence_of else Said(answer)

    said(np.zeros((recipe.image_size, recipe.image_size, 3), np.float32), True)  # Now, not for the first who asks.
    return Served(
        simple(path.resolve().name), str(loaded.step),
        f'{recipe.model} with {count(len(names), "label")}, from {printable(loaded.path)} (step {loaded.step}), with '
        f'{engine}', list(names.values()), keep is not None and can_abstain(loaded), evidence_of is not None,
        run.records.get('treatment', {}), prepared, said)


def _evidence(model, numbers: list[int], engine: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """A view -> what its places say, float32 [h, w, labels]; None where the network does not know of places."""
    maps = cuts.with_features_and_maps(model).outputs[2:]
    if not activation.have_places(maps):
        return None
    maps_of = engines.frozen(keras.Model(model.inputs, maps), engine)
    kernel = activation.head_of(model).kernel.numpy()[:, numbers]
    return lambda view: activation.evidence(tf.nest.flatten(maps_of(view[None])), kernel).numpy()[0]


# An export ------------------------------------------------------------------------------------------------------------


def is_export(path: Path) -> bool:
    return (path / card.FACTS).is_file()  # No FIFO, which would be waited for.


def of_export(directory: Path) -> Served:
    """By OpenVINO where the export has it, as that starts at once; else by TensorFlow."""
    facts = _facts(directory)
    served_by = _readable(directory, facts['formats'])
    _check_files(directory, facts['formats'][served_by].get('files'), served_by)
    labels, size, crop_fraction = facts['labels'], facts['image_size'], facts['crop_fraction']
    prepared, view_of, outputs_of = READERS[served_by](directory, size, crop_fraction)
    first = outputs_of(prepared(BLACK))
    if first['logits'].shape != (len(labels),):
        raise _changed(directory, f'{len(labels)} labels for {first["logits"].size} outputs')

    def said(given: np.ndarray, explained: bool) -> Said:
        found = outputs_of(given)
        if not np.isfinite(found['logits']).all():
            raise Error(f'{printable(directory)}: the outputs are not finite.')
        order = metrics.ranked(found['logits'][None], len(labels))[0]
        answer = {'top': [(labels[number], float(found['probabilities'][number])) for number in order]}
        if 'unknown' in found:
            answer |= {'familiarity': round(float(found['familiarity']), 6), 'is_unknown': bool(found['unknown'])}
        return Said(answer, found['evidence'], view_of(given)) if explained and 'evidence' in found else Said(answer)

    run = facts.get('run') if isinstance(facts.get('run'), dict) else {}
    return Served(
        simple(directory.resolve().name), str(run.get('step', 1)),
        f'{printable(str(run.get("network", "a network")))} with {count(len(labels), "label")}, from the {served_by} '
        f'in {printable(directory)}', labels, 'unknown' in first, 'evidence' in first, facts['treatment'],
        lambda encoded: prepared(quick_views.decode(encoded)), said)


def _facts(directory: Path) -> dict:
    path = directory / card.FACTS
    try:
        if path.stat().st_size > MOST_FACTS:
            raise ValueError('it is too large')
        facts = json.loads(path.read_bytes())
        facts.setdefault('treatment', {})  # Exports of old do not say.
        check_treatment(facts['treatment'])
        labels, size, fraction, formats = (facts[name] for name in ('labels', 'image_size', 'crop_fraction', 'formats'))
        right = (isinstance(labels, list) and labels and all(isinstance(each, str) for each in labels)
                 and type(size) is int and 0 < size < 1 << 14 and type(fraction) in (int, float) and 0 < fraction <= 1
                 and isinstance(formats, dict) and all(isinstance(each, dict) for each in formats.values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise _changed(directory, printable(f'{type(error).__name__}: {error}')) from None
    if not right:
        raise _changed(directory, 'its values make no sense')
    return facts


def _changed(directory: Path, reason: str) -> Error:
    return Error(f'{printable(directory / card.FACTS)} is not as `finetune export` wrote it ({reason}). Export again.')


def _readable(directory: Path, formats: dict) -> str:
    there = [name for name in READERS if name in formats]
    if not there:
        raise Error(f'{printable(directory)} has only {", ".join(map(printable, formats)) or "no format"}, and '
                    f'{" or ".join(READERS)} is served: `finetune export RUN --format=openvino`, or serve the run.')
    installed = [name for name in there if importlib.util.find_spec(NEEDS[name])]
    if not installed:
        raise UsageError(f'the {there[0]} in {printable(directory)} needs what is not installed: '
                         f'pip install {NEEDS[there[0]]}')
    return installed[0]


def _check_files(directory: Path, files, served_by: str) -> None:
    """Raises Error unless all files are as they were written: a bit that has turned changes answers in silence."""
    if not isinstance(files, dict) or not files:
        raise _changed(directory, f'no files of {served_by}')
    for name, told in files.items():
        path = directory / name
        inside = path.resolve().is_relative_to(directory.resolve())
        if not inside or not path.is_file() or not isinstance(told, dict) or path.stat().st_size != told.get('bytes'):
            raise Error(f'{printable(path)} is not there as it was written. Export again.')
        with path.open('rb') as file:
            if hashlib.file_digest(file, 'sha256').hexdigest() != told.get('sha256'):
                raise Error(f'{printable(path)} was changed or damaged after it was written. Export again.')


def _by_openvino(directory: Path, size: int, crop_fraction: float) -> tuple[Callable, Callable, Callable]:
    """(a picture -> what the network is given, that -> the view, that -> the outputs by name, in the labels' order)."""
    core = openvino.openvino.Core()
    network = core.compile_model(
        openvino.of_views(core.read_model(directory / 'openvino/model.xml'), size), 'CPU', IN_FLOAT32)
    request, names = network.create_infer_request(), [output.any_name for output in network.outputs]

    def outputs_of(view: np.ndarray) -> dict:
        found = request.infer([view[None]])
        return {name: found[output][0] for name, output in zip(names, network.outputs, strict=True)}

    return lambda picture: quick_views.view(picture, size, crop_fraction), lambda view: view, outputs_of


def _by_tensorflow(directory: Path, size: int, crop_fraction: float) -> tuple[Callable, Callable, Callable]:
    """The same; the network is given pixels."""
    loaded = tf.saved_model.load(str(directory / 'savedmodel/1'))

    def outputs_of(pixels: np.ndarray) -> dict:
        network = loaded.signatures['serving_pixels']  # Of what was loaded, which holds its weights.
        outputs = {name: found[0].numpy() for name, found in network(pixels=tf.constant(pixels[None])).items()}
        in_order = np.empty_like(outputs['probabilities'])
        in_order[metrics.ranked(outputs['logits'][None], len(in_order))[0]] = outputs['probabilities']
        return outputs | {'probabilities': in_order}

    return (np.asarray, lambda pixels: quick_views.view(Image.fromarray(pixels), size, crop_fraction), outputs_of)


READERS = {'openvino': _by_openvino, 'savedmodel': _by_tensorflow}
NEEDS = {'openvino': 'openvino', 'savedmodel': 'tensorflow'}
BLACK = Image.new('RGB', (64, 48))  # Answered once before anyone asks.
