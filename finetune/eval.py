"""`finetune eval`: one exact pass of a run over its records, and every number that follows from it."""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

from finetune.console import command, files
from finetune.console.errors import Error, UsageError
from finetune.console.terminal import count, duration, printable, say, say_next, show, warn
from finetune.evaluation import answers, metrics, results
from finetune.evaluation import evaluate as evaluation
from finetune.models import engines
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import winner
from finetune.runs.run import Loaded, Run, check_checkpoint
from finetune.training import towers

FLAGS = command.Flags(
    'finetune eval --checkpoint_dir=RUN --data_dir=RECORDS --run_once [flags]',
    'Answers every record of a split once and says how good the answers are: precision@1 with its 95 % '
    'interval, recall@5, per class, confusion, and the worst mistakes as pictures.')
FLAGS.group('what')
FLAGS.path('checkpoint_dir', None, 'run directory, the --train_dir of `finetune train`; or a project, which '
           'stands for its run that won')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build` (default: '
           'those of the project)')
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


def evaluate(flags: SimpleNamespace) -> dict:
    """Opens the records and the run, then evaluates one checkpoint or, until Ctrl-C, every new one.

    Returns what metrics.json holds.
    """
    flags.data_dir = winner.data_directory(flags.data_dir, flags.checkpoint_dir)
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
    return evaluate_checkpoint(flags, run, loaded, data, strategy, required)


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
    """Prints the results and writes the files; raises where a figure that was required is missed."""
    directory = Path(flags.eval_dir or run.directory / 'eval' / flags.subset)
    files.prepare(directory, 'the results are written there', '--eval_dir')
    if flags.subset == 'test' and run.records['fingerprint'] != data.fingerprint:
        warn('the run was trained on other records than these: the figures are too good if any of these test pictures '
             'were among them.')
    tell = say if flags.json else show
    tell(f'Successfully loaded model from {printable(loaded.path)} at step={loaded.step}.')
    tell(f'{datetime.now()}: starting evaluation on ({printable(flags.subset)}).')
    engine = engines.choose(flags.engine, run.recipe.mixed_precision, strategy.num_replicas_in_sync)
    done = evaluation.evaluate(
        run, loaded, data, flags.subset, engine, strategy, batch_size=flags.batch_size,
        threads=flags.num_preprocess_threads, most=flags.num_examples, averages=flags.averages,
        as_best=flags.run_once and flags.checkpoint != 'last', required=required)
    scores, found = done.scores, done.found
    try:
        written = evaluation.write(directory, done, data)
    finally:  # They are written although nobody reads them, and shown although the disk is full.
        show(json.dumps(found) if flags.json else
             results.as_text(scores, datetime.now(), found['best_of'], 'test' in data.splits))
    if found['calibration']:
        tell(results.calibration_line(found['calibration']))
    say(f'{count(scores.records, "picture")} in {duration(done.seconds)}, {scores.records / done.seconds:.1f} '
        f'pictures/s with {engine} (--engine)')
    say(f'Wrote {", ".join(map(printable, written))}')
    if flags.run_once:
        say_next('finetune', 'predict', f'--checkpoint_dir={flags.checkpoint_dir}', 'photo.jpg', 'folder/')
    metrics.check(required, scores.figures())
    return found


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
