"""`finetune compare`: several runs on the same pictures, which of them is better, and how sure that is."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.console import command
from finetune.console.errors import RequirementMissed, UsageError
from finetune.console.terminal import count, printable, say, say_next, show, table
from finetune.evaluation import answers, comparison, metrics, results
from finetune.evaluation.comparison import Pair
from finetune.evaluation.inference import Outputs
from finetune.evaluation.verdicts import Entry, Verdict, against_the_best, points, sentence
from finetune.evaluation.verdicts import as_json as verdicts_as_json
from finetune.models import engines
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import winner
from finetune.runs.run import Run, check_checkpoint
from finetune.training import backbones, towers

SCHEMA = 1  # Of --json; it changes when a name in there changes its meaning or goes.
NOT_WORSE = 'not_worse'
OF_RUNS = ('subset', 'checkpoint', 'require', 'margin', 'batch_size', 'num_gpus')  # Flags.

FLAGS = command.Flags(
    'finetune compare RUN RUN ... --data_dir=RECORDS | --models=NAME,NAME,... RECORDS [flags]',
    'Says which of several runs answers the same pictures better, by how much (95 % interval), and whether that may be '
    'chance (exact McNemar test); where it may, how many pictures would tell. Answers that `finetune eval` has kept '
    'are not computed again. Or, before anything is trained, which of several backbones suits the pictures: each with '
    'the best head on it, by cross-validation over the training pictures. Keeps features, and writes nothing else.')
FLAGS.group('what')
FLAGS.path('data_dir', None, 'records directory, the --output_directory of `finetune build`')
FLAGS.string('models', '', 'backbones to compare, NAME or NAME=WEIGHTS (a file, a run), with imagenet weights where '
             'none are named: "mobilenet_v2,inception_v3=PATH.h5"')
FLAGS.path('feature_dir', None, 'where the features of --models are kept, that `finetune train --freeze_backbone` uses '
           'too (default: features in the records)')
FLAGS.string('subset', 'validation', 'split to compare on: validation, train, or test, which no training looks at')
FLAGS.string('checkpoint', 'best', 'best (last if there is none), last or a step: one for all runs, or one for each, '
             'say "best,1200"')
FLAGS.group('results')
FLAGS.string('require', '', f'"{NOT_WORSE}": else the exit code is 3. The FIRST run is the candidate, the SECOND the '
             'reference, and not worse means that the 95 % interval of (candidate - reference) lies above -margin')
FLAGS.number('margin', 0.02, f'precision@1 that {NOT_WORSE} lets the candidate lose; 0.02 is 2 points', least=0, most=1)
FLAGS.switch('json', False, 'print everything as JSON, on one line, instead of sentences')
FLAGS.group('device')
FLAGS.integer('batch_size', 32, 'pictures at a time, over all towers together', least=1)
FLAGS.integer('num_gpus', None, 'towers that share each batch (default: all GPUs, or one CPU)', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that decode (default: chosen while running)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, compare, argv)


def compare(flags: SimpleNamespace) -> dict:
    """Lets all answer the same pictures, and says which is better; returns what --json prints."""
    return _compare_backbones(flags) if flags.models else _compare_runs(flags)


def _compare_runs(flags: SimpleNamespace) -> dict:
    flags.data_dir = winner.data_directory(flags.data_dir, next(iter(flags.arguments), None))
    checkpoints = _check_usage(flags)
    data = dataset.open_records(flags.data_dir)
    data.split(flags.subset)  # Raises Error before anything is waited for.
    runs = [Run(directory) for directory in flags.arguments]
    for run in runs[1:]:
        answers.check_labels(runs[0], run)
    answers.check_labels(runs[0], data)
    _check_different(runs, checkpoints)
    entries = _entries(flags, runs, checkpoints, data)
    verdicts = against_the_best(entries)
    candidate = comparison.pair(entries[0].right, entries[1].right) if flags.require else None
    is_met = candidate is None or candidate.interval[0] > -flags.margin
    found = _as_json(flags, data, entries, verdicts, candidate, is_met)
    if flags.json:
        show(json.dumps(found))
    else:
        show(as_text(entries, verdicts, remarks(entries, data, flags.subset)))
    if not is_met:
        first, second = (printable(entry.name) for entry in entries)
        raise RequirementMissed(
            f'--require={NOT_WORSE} is not met: {first} may be {points(-candidate.interval[0], candidate)} points '
            f'worse than {second} by the lower end of the 95 % interval, and --margin={flags.margin:g} allows less. '
            'More pictures make the interval narrower.')
    return found


def _compare_backbones(flags: SimpleNamespace) -> dict:
    """Which to begin with: each network's features, and a head on them that answers in turn what it did not see."""
    wanted = backbones.named(flags.models)
    unused = [name for name in OF_RUNS if name in flags.given]
    if unused:
        raise UsageError(f'--{unused[0]} is about runs: leave it out with --models')
    places = [*flags.arguments, *([flags.data_dir] if flags.data_dir else [])]
    if len(places) != 1:
        raise UsageError(f'--models takes one directory of records, and {len(places)} were named: '
                         '`finetune compare --models=NAME,NAME RECORDS`')
    data = dataset.open_records(Path(command.expanded(places[0])))
    data.split('train')  # Raises Error before anything is waited for.
    kept_in = Path(flags.feature_dir or data.directory / 'features')
    engine = engines.choose_for_features(flags.engine)
    found = backbones.best_first([
        backbones.measured(backbones.head(*each), data, 'train', kept_in, engine, flags.num_preprocess_threads)
        for each in wanted.items()])
    verdicts = against_the_best(found)
    as_json = backbones.as_json(data, found, verdicts)
    if flags.json:
        show(json.dumps(as_json))
    else:
        show(backbones.as_text(found, verdicts))
        say_next('finetune', 'train', f'--data_dir={data.directory}', f'--train_dir=checkpoints/{found[0].name}',
                 f'--model={found[0].name}', f'--pretrained={found[0].recipe.pretrained}', '--fine_tune',
                 '--freeze_backbone')
    return as_json


def _check_usage(flags: SimpleNamespace) -> list[str]:
    """Returns the checkpoint of each run."""
    runs, checkpoints = len(flags.arguments), flags.checkpoint.split(',')
    if runs < 2:
        raise UsageError(f'{"one run was" if runs else "no runs were"} named: give two or more, each the --train_dir '
                         'of a training: `finetune compare RUN RUN --data_dir=RECORDS`')
    if not flags.data_dir:
        raise UsageError('--data_dir is missing: give the --output_directory of a build')
    for checkpoint in checkpoints:
        check_checkpoint(checkpoint)
    if len(checkpoints) not in (1, runs):
        raise UsageError(f'--checkpoint names {len(checkpoints)} checkpoints for {runs} runs: give one for all, or one '
                         'for each')
    if flags.require not in ('', NOT_WORSE):
        raise UsageError(f'--require={printable(flags.require)} is not understood: expected {NOT_WORSE}')
    if flags.require and runs > 2:
        raise UsageError(f'--require={NOT_WORSE} is about two runs, a candidate and a reference, but {runs} were named')
    if 'margin' in flags.given and not flags.require:
        raise UsageError(f'--margin is what --require={NOT_WORSE} allows: add that')
    return checkpoints * runs if len(checkpoints) == 1 else checkpoints


# Answers --------------------------------------------------------------------------------------------------


def _entries(flags: SimpleNamespace, runs: Sequence[Run], checkpoints: Sequence[str], data: Records) -> list[Entry]:
    """Every run with its answers: of all that are not kept, computed one after the other."""
    found = [_kept(run, which, data, flags.subset) for run, which in zip(runs, checkpoints, strict=True)]
    # Towers on CPUs must exist before TensorFlow starts, which takes its time where all answers are kept.
    strategy = None if all(found) else towers.strategy(flags.num_gpus)
    entries = []
    for run, which, name, kept in zip(runs, checkpoints, _names(runs), found, strict=True):
        outputs, path, checkpoint = kept or _computed(flags, run, which, name, data, strategy)
        step = _step(checkpoint)
        best_of = answers.best_of(run, step, data, flags.subset) if which != 'last' else 1
        entries.append(Entry(name, run, step, checkpoint, outputs, path, best_of))
    return _told_apart_by_step(entries)


def _kept(run: Run, which: str, data: Records, split: str) -> tuple[Outputs, Path, str] | None:
    for name in run.candidates(which)[:1]:
        checkpoint = run.directory / name
        identity = answers.identity(run, checkpoint, data, split, averages=True)
        found = answers.kept(run, identity, data.split(split).records)
        if found:
            say(f'Taking what `finetune eval` kept: {printable(found[1])}')
            return *found, str(checkpoint)
    return None


def _computed(
    flags: SimpleNamespace, run: Run, which: str, name: str, data: Records, strategy,
) -> tuple[Outputs, None, str]:
    loaded = answers.load(run, which, True, strategy)
    engine = engines.choose(flags.engine, run.recipe.mixed_precision, strategy.num_replicas_in_sync)
    say(f'{printable(name)} answers {count(data.split(flags.subset).records, "picture")}, with {engine} (--engine)')
    outputs = answers.answer(
        run, loaded, data, flags.subset, engine, strategy, flags.batch_size, flags.num_preprocess_threads)
    return outputs, None, loaded.path


def _check_different(runs: Sequence[Run], checkpoints: Sequence[str]) -> None:
    seen = set()
    for run, which in zip(runs, checkpoints, strict=True):
        names = run.candidates(which)
        step = _step(names[0]) if names else run.load(which).step  # Raises Error, and says what there is.
        if (run.directory.resolve(), step) in seen:
            raise UsageError(f'{printable(run.directory)} is named twice, with the same checkpoint (step {step}): name '
                             'another run, or compare two checkpoints of one with --checkpoint=best,last')
        seen.add((run.directory.resolve(), step))


def _step(checkpoint: str) -> int:
    return int(checkpoint.rpartition('-')[2])


def _names(runs: Sequence[Run]) -> list[str]:
    """The last part of each path; where two directories are called the same, the whole paths."""
    places = [run.directory.resolve() for run in runs]
    names = [place.name for place in places]
    if len(set(names)) < len(set(places)):
        names = [str(run.directory) for run in runs]
    return names


def _told_apart_by_step(entries: Sequence[Entry]) -> list[Entry]:
    """Of one run more than once, the name alone does not say which."""
    names = [entry.name for entry in entries]
    return [entry if names.count(entry.name) == 1 else
            dataclasses.replace(entry, name=f'{entry.name} at step {entry.step}') for entry in entries]


# What is said ---------------------------------------------------------------------------------------------


def as_text(entries: Sequence[Entry], verdicts: Sequence[Verdict], notes: Sequence[str]) -> str:
    """The runs in a table, a sentence for each pair, and what else is to be known of it."""
    lines = [_table(entries), '', *map(sentence, verdicts)]
    if len(entries) > 2:
        lines.append(f'Each is compared with {printable(verdicts[0].first.name)}, which has the most right answers '
                     f'here. Of {len(entries)} runs one may lead by luck: p is corrected for all pairs (Holm), the '
                     'intervals are not.')
    return '\n'.join([*lines, *notes])


def _table(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        right, pictures = int(entry.right.sum()), len(entry.right)
        low, high = metrics.wilson(right, pictures)
        recipe = entry.run.recipe
        rows.append((entry.name, recipe.model, recipe.image_size, entry.step, right, pictures,
                     f'{right / pictures:.4f}', f'{low:.4f} to {high:.4f}'))
    return table(rows, ('run', 'network', 'size', 'step', 'right', 'of', 'precision@1', '95 % interval'))


def remarks(entries: Sequence[Entry], data: Records, split: str) -> list[str]:
    """What makes the comparison unfair, or flatters."""
    lines = [f'{printable(entry.name)}: {results.chosen(entry.best_of, "test" in data.splits)}'
             for entry in entries if entry.best_of > 1]
    trained_on = {entry.run.records['fingerprint'] for entry in entries}
    if split == 'train' and data.fingerprint in trained_on:
        lines.append('these are pictures that were trained on: they say little about others (--subset)')
    elif len(trained_on) > 1:
        lines.append('the runs were trained on different records: one that saw some of these pictures is flattered')
    return lines


def _as_json(flags, data, entries, verdicts, candidate: Pair | None, is_met: bool) -> dict:
    text = results.json_text
    return {
        'schema': SCHEMA,
        'data': text(data.directory),
        'data_fingerprint': data.fingerprint,
        'subset': flags.subset,
        'records': len(entries[0].right),
        'runs': [{
            'name': printable(entry.name), 'run': text(entry.run.directory), 'checkpoint': text(entry.checkpoint),
            'step': entry.step, 'model': entry.run.recipe.model, 'image_size': entry.run.recipe.image_size,
            'right': int(entry.right.sum()), 'precision@1': float(entry.right.mean()),
            'precision@1_interval_95': list(metrics.wilson(int(entry.right.sum()), len(entry.right))),
            'best_of': entry.best_of, 'kept': text(entry.kept) if entry.kept else None,
        } for entry in entries],
        'comparisons': verdicts_as_json(verdicts),
        'requirements': {NOT_WORSE: {
            'holds': is_met, 'margin': flags.margin, 'difference': candidate.difference,
            'interval_95': list(candidate.interval)}} if candidate else {},
        'remarks': remarks(entries, data, flags.subset),
    }


if __name__ == '__main__':
    raise SystemExit(main())
