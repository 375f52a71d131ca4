"""`finetune eval`: one exact pass of a run over its records, and every number that follows from it."""

import dataclasses
import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np

from finetune.console import command, files, machine
from finetune.console.errors import Error, UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import count, duration, printable, say, say_next, warn
from finetune.evaluation import answers, calibration, metrics, results, unknown
from finetune.evaluation.inference import Outputs
from finetune.models import engines
from finetune.records import dataset, examples
from finetune.records.dataset import Records
from finetune.runs import trust
from finetune.runs.run import Loaded, Run, check_checkpoint
from finetune.training import logs, towers

FLAGS = command.Flags(
    'finetune eval --checkpoint_dir=RUN --data_dir=RECORDS --run_once [flags]',
    'Answers every record of a split once and says how good the answers are: precision@1 with its 95 % '
    'interval, recall@5, per class, confusion, and the worst mistakes as pictures.')
FLAGS.group('what')
FLAGS.path('checkpoint_dir', None, 'run directory, the --train_dir of `finetune train`')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build`')
FLAGS.string('subset', 'validation', 'split to evaluate on: validation, train, or test, which no training looks at')
FLAGS.switch('verify', False, 'compare the sha256 of every shard with dataset.json first')
FLAGS.integer('num_examples', None, 'only the first so many records (default: all)', least=1)
FLAGS.string('checkpoint', None, 'best, last or a step, for --run_once (default: best; last if there is none)')
FLAGS.switch('averages', True, 'use the moving averages of the weights where the run has them')
FLAGS.group('when')
FLAGS.switch('run_once', False, 'evaluate one checkpoint and end; without it every new one, until Ctrl-C')
FLAGS.integer('eval_interval_secs', 10, 'seconds between two looks for a new checkpoint', least=1)
FLAGS.group('results')
FLAGS.path('eval_dir', None, 'directory of the results (default: eval/SUBSET in --checkpoint_dir)')
FLAGS.string('require', '', 'figures to reach, say "precision@1>=0.9,loss<0.5"; else the exit code is 3')
FLAGS.switch('json', False, 'print metrics.json, on one line, instead of lines and tables')
FLAGS.group('device')
FLAGS.integer('batch_size', 32, 'pictures at a time, over all towers together', least=1)
FLAGS.integer('num_gpus', None, 'towers that share each batch (default: all GPUs, or one CPU)', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, evaluate, argv)


def evaluate(flags: SimpleNamespace) -> None:
    """Opens the records and the run, then evaluates one checkpoint or, until Ctrl-C, every new one."""
    required = _check_usage(flags)
    strategy = towers.strategy(flags.num_gpus)  # First: towers on CPUs must exist before TensorFlow starts.
    data = dataset.open_records(flags.data_dir)
    data.split(flags.subset)  # Raises Error before anything is waited for.
    if flags.verify:
        dataset.verify(data)
    if not flags.run_once:
        watch(flags, strategy)
    run = Run(flags.checkpoint_dir)
    answers.check_labels(run, data)
    loaded = answers.load(run, flags.checkpoint or 'best', flags.averages, strategy)
    figures = evaluate_checkpoint(flags, run, loaded, data, strategy, required)['figures']
    say_next('finetune', 'predict', f'--checkpoint_dir={flags.checkpoint_dir}', 'photo.jpg', 'folder/')
    metrics.check(required, figures)


def _check_usage(flags: SimpleNamespace) -> list[metrics.Requirement]:
    if not flags.checkpoint_dir:
        raise UsageError('--checkpoint_dir is missing: give the --train_dir of a training')
    if not flags.data_dir:
        raise UsageError('--data_dir is missing: give the --output_directory of a build')
    check_checkpoint(flags.checkpoint or 'best')
    if not flags.run_once and (flags.checkpoint or flags.require):
        raise UsageError('--checkpoint and --require are about one checkpoint: add --run_once')
    if flags.arguments:
        raise UsageError(f'{printable(flags.arguments[0])!r} is no flag; finetune predict takes pictures')
    return metrics.requirements(flags.require)


# One checkpoint -------------------------------------------------------------------------------------------


def evaluate_checkpoint(
    flags: SimpleNamespace, run: Run, loaded: Loaded, data: Records, strategy,
    required: Sequence[metrics.Requirement] = (),
) -> dict:
    """Prints the results, writes the files, and returns what metrics.json holds."""
    directory = Path(flags.eval_dir or run.directory / 'eval' / flags.subset)
    files.prepare(directory, 'the results are written there', '--eval_dir')
    if flags.subset == 'test' and run.records['fingerprint'] != data.fingerprint:
        warn('the run was trained on other records than these: the figures are too good if any of these test pictures '
             'were among them.')
    tell = say if flags.json else print
    tell(f'Successfully loaded model from {printable(loaded.path)} at step={loaded.step}.')
    tell(f'{datetime.now()}: starting evaluation on ({printable(flags.subset)}).')
    identity = answers.identity(run, loaded.path, data, flags.subset, flags.averages)
    started = time.monotonic()
    outputs = answers.answer(
        run, loaded, data, flags.subset, _engine(flags, run, strategy), strategy, flags.batch_size,
        flags.num_preprocess_threads, flags.num_examples)
    seconds = time.monotonic() - started
    scores = metrics.score(outputs.labels, outputs.logits, run.labels)
    facts = _facts(flags, run, loaded, data, strategy, seconds)
    facts['calibration'] = _calibration(outputs, loaded, answers.chose(run, data, flags.subset))
    found = results.as_json(scores, required, facts)
    try:
        written = [*answers.keep(directory, outputs, identity),
                   *results.write(directory, scores, _worst_examples(outputs, loaded, data, flags.subset), found)]
        scalars = {'Precision @ 1': scores.precision_at_1, 'Recall @ 5': scores.recall_at_5}
        logs.Summaries(directory).scalars(loaded.step, scalars)
    finally:  # They are written although nobody reads them, and shown although the disk is full.
        print(json.dumps(found) if flags.json else
              results.as_text(scores, datetime.now(), found['best_of'], 'test' in data.splits), flush=True)
    if found['calibration']:
        tell(results.calibration_line(found['calibration']))
    say(f'{count(scores.records, "picture")} in {duration(seconds)}, {scores.records / seconds:.1f} pictures/s '
        f'with {found["engine"]} (--engine)')
    say(f'Wrote {", ".join(map(printable, written))}')
    return found


def _engine(flags: SimpleNamespace, run: Run, strategy) -> str:
    return engines.choose(flags.engine, run.recipe.mixed_precision, strategy.num_replicas_in_sync)


def _asks_for_the_best(flags: SimpleNamespace) -> bool:
    """By its name, or by the number that stands in a report."""
    return flags.run_once and flags.checkpoint != 'last'


def _calibration(outputs: Outputs, loaded: Loaded, chose: bool) -> dict | None:
    """How far the probabilities can be believed, without and with the temperature; None where the run has none.

    Where steps were made, the pictures that chose the checkpoint are those that the temperature was fitted to: then
    half of them says what the temperature of the other half does.
    """
    fitted, labels, logits = loaded.trust, outputs.labels, outputs.logits
    if fitted is None:
        return None
    in_turn = chose and fitted.fitted_on == trust.VALIDATION
    scaled = calibration.halves_in_turn(labels, logits) if in_turn else logits / fitted.temperature
    return {
        'temperature': fitted.temperature, 'fitted_on': fitted.fitted_on, 'fitted_on_pictures': fitted.pictures,
        'after_is_by_halves_in_turn': in_turn,
        'before': dataclasses.asdict(calibration.measure(labels, logits)),
        'after': dataclasses.asdict(calibration.measure(labels, scaled)),
        'keep': unknown.KEEP if fitted.can_abstain else None,
        'unknown': int(np.sum(outputs.extra <= 1 - unknown.KEEP)) if fitted.can_abstain else None}


def _worst_examples(outputs: Outputs, loaded: Loaded, data: Records, split: str) -> list[results.Example]:
    """With the probabilities that `finetune predict` gives."""
    temperature = loaded.trust.temperature if loaded.trust else 1.0
    mistakes = metrics.worst_mistakes(outputs.labels, outputs.logits / temperature)
    pictures = _encoded(data, split, {mistake.index for mistake in mistakes})
    return [results.Example(mistake, outputs.filenames[mistake.index], pictures[mistake.index])
            for mistake in mistakes]


def _encoded(data: Records, split: str, places: set[int]) -> dict[int, bytes]:
    """The stored pictures at these places of a split. Reads all of it once more, but decodes nothing."""
    stored = enumerate(tf.data.TFRecordDataset(data.paths(split)).as_numpy_iterator()) if places else ()
    return {place: examples.parse(record)['encoded'].numpy() for place, record in stored if place in places}


def _facts(flags: SimpleNamespace, run: Run, loaded: Loaded, data: Records, strategy, seconds: float) -> dict:
    """What was evaluated, with what, on what."""
    recipe = run.recipe
    return {
        'time': datetime.now().astimezone().isoformat(timespec='seconds'),
        'run': results.json_text(run.directory),
        'checkpoint': results.json_text(loaded.path),
        'step': loaded.step,
        'averages': flags.averages and recipe.moving_average_decay > 0,
        'model': recipe.model,
        'image_size': recipe.image_size,
        'crop_fraction': recipe.crop_fraction,
        'data': results.json_text(data.directory),
        'data_fingerprint': data.fingerprint,
        'subset': flags.subset,
        'subset_records': data.split(flags.subset).records,
        'best_of': answers.best_of(run, loaded.step, data, flags.subset) if _asks_for_the_best(flags) else 1,
        'batch_size': flags.batch_size,
        'engine': _engine(flags, run, strategy),
        'seconds': round(seconds, 3),
        'machine': machine.describe(),
        'versions': machine.versions(),
    }


# Every new checkpoint -------------------------------------------------------------------------------------


def watch(flags: SimpleNamespace, strategy) -> NoReturn:
    """Evaluates every checkpoint that appears, oldest first, until Ctrl-C; passes over those that are gone."""
    last_step = -1
    say(f'Waiting for checkpoints in {printable(flags.checkpoint_dir)} until Ctrl-C (or --run_once).')
    while True:
        run = Run(flags.checkpoint_dir) if Run.exists(flags.checkpoint_dir) else None
        for step in run.steps() if run else []:
            if step > last_step:
                last_step = step
                _evaluate_if_there(flags, run, step, strategy)
        time.sleep(flags.eval_interval_secs)


def _evaluate_if_there(flags: SimpleNamespace, run: Run, step: int, strategy) -> None:
    data = dataset.open_records(flags.data_dir)  # Now: in the hours of watching they may have been built again.
    answers.check_labels(run, data)
    try:
        loaded = run.load(step, flags.averages, strategy)
    except Error as error:
        reason = error if step in run.steps() else 'training keeps only the newest few'
        say(f'the checkpoint of step {step} is passed over: {reason}')
        return
    evaluate_checkpoint(flags, run, loaded, data, strategy)


if __name__ == '__main__':
    raise SystemExit(main())
