"""One exact pass of a run over records, every number that follows from it, and the files they are kept in."""

import dataclasses
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from finetune.console import machine
from finetune.evaluation import answers, calibration, metrics, results, unknown
from finetune.evaluation.inference import Outputs
from finetune.evaluation.metrics import Requirement, Scores
from finetune.records import examples
from finetune.records.dataset import Records
from finetune.runs import trust
from finetune.runs.run import Loaded, Run
from finetune.runs.summaries import Summaries


@dataclasses.dataclass(frozen=True)
class Evaluation:
    outputs: Outputs
    scores: Scores
    found: dict  # What metrics.json holds.
    seconds: float  # That the pass took.
    temperature: float  # That `finetune predict` divides the logits by.
    identity: str | None  # Of the answers; see `answers.identity`.


def evaluate(
    run: Run, loaded: Loaded, data: Records, subset: str, engine: str, strategy, *, batch_size: int = 32,
    threads: int | None = None, most: int | None = None, averages: bool = True, as_best: bool = True,
    required: Sequence[Requirement] = (),
) -> Evaluation:
    """Answers every record of the split once, or the first `most`; writes nothing.

    `as_best`: whether the checkpoint was asked for as the best one, so that its choice belongs to what is to be told.
    """
    identity = answers.identity(run, loaded.path, data, subset, averages)  # Before training replaces it.
    started = time.monotonic()
    outputs = answers.answer(run, loaded, data, subset, engine, strategy, batch_size, threads, most)
    seconds = time.monotonic() - started
    scores = metrics.score(outputs.labels, outputs.logits, run.labels)
    recipe = run.recipe
    facts = {  # What was evaluated, with what, on what.
        'time': datetime.now().astimezone().isoformat(timespec='seconds'),
        'run': results.json_text(run.directory),
        'checkpoint': results.json_text(loaded.path),
        'step': loaded.step,
        'averages': averages and recipe.moving_average_decay > 0,
        'model': recipe.model,
        'image_size': recipe.image_size,
        'crop_fraction': recipe.crop_fraction,
        'data': results.json_text(data.directory),
        'data_fingerprint': data.fingerprint,
        'subset': subset,
        'subset_records': data.split(subset).records,
        'best_of': answers.best_of(run, loaded.step, data, subset) if as_best else 1,
        'batch_size': batch_size,
        'engine': engine,
        'seconds': round(seconds, 3),
        'machine': machine.describe(),
        'versions': machine.versions(),
        'calibration': _calibration(outputs, loaded, answers.chose(run, data, subset)),
    }
    temperature = loaded.trust.temperature if loaded.trust else 1.0
    return Evaluation(outputs, scores, results.as_json(scores, required, facts), seconds, temperature, identity)


def _calibration(outputs: Outputs, loaded: Loaded, chose: bool) -> dict | None:
    """How far the probabilities can be believed, without and with the temperature; None where the run has none.

    Where steps were made, the pictures that chose the checkpoint are those that the temperature was fitted to: then
    half of them says what the temperature of the other half does.
    """
    fitted, labels, logits = loaded.trust, outputs.labels, outputs.logits
    if fitted is None:
        return None
    in_turn = chose and fitted.fitted_on == trust.VALIDATION
    temperatures = calibration.halves_in_turn(labels, logits) if in_turn else fitted.temperature
    return {
        'temperature': fitted.temperature, 'fitted_on': fitted.fitted_on, 'fitted_on_pictures': fitted.pictures,
        'after_is_by_halves_in_turn': in_turn,
        'before': dataclasses.asdict(calibration.measure(labels, logits)),
        'after': dataclasses.asdict(calibration.measure(labels, logits, temperatures)),
        'keep': unknown.KEEP if fitted.can_abstain else None,
        'unknown': int(np.sum(outputs.extra <= 1 - unknown.KEEP)) if fitted.can_abstain else None}


def write(directory: Path, done: Evaluation, data: Records) -> list[Path]:
    """The answers, the tables, the pictures, and the figures for TensorBoard; returns what is for people to open."""
    scores, found = done.scores, done.found
    written = [*answers.keep(directory, done.outputs, done.identity),
               *results.write(directory, scores, _worst_examples(done, data, found['subset']), found)]
    scalars = {'Precision @ 1': scores.precision_at_1, 'Recall @ 5': scores.recall_at_5}
    Summaries(directory).scalars(found['step'], scalars)
    return written


def _worst_examples(done: Evaluation, data: Records, split: str) -> list[results.Example]:
    """With the probabilities that `finetune predict` gives."""
    outputs = done.outputs
    mistakes = metrics.worst_mistakes(outputs.labels, outputs.logits, temperature=done.temperature)
    pictures = examples.encoded_at(data.paths(split), {mistake.index for mistake in mistakes})
    return [results.Example(mistake, outputs.filenames[mistake.index], pictures[mistake.index])
            for mistake in mistakes]
