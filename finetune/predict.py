"""`finetune predict`: a run and pictures -> labels."""

import collections
import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.building.sources import folders
from finetune.console import command, machine
from finetune.console.errors import Error, UsageError
from finetune.console.terminal import Progress, columns, count, duration, pad, printable, say, show
from finetune.evaluation import unknown
from finetune.models import engines
from finetune.predicting import pipeline, sorting
from finetune.predicting.answering import UNKNOWN, Answer, answerer, can_abstain, facts
from finetune.predicting.asked import find_pictures
from finetune.runs.run import Loaded, Run, check_checkpoint

FLAGS = command.Flags(
    'finetune predict --checkpoint_dir=RUN PICTURE_OR_FOLDER ... [flags]',
    'Says what is on pictures. A folder means the pictures in it and below it, linked folders too; - means a list '
    'of files and folders on stdin, one a line or with NULs between them. A file that is no good picture gets a '
    'line that says why, and the exit code is 1.')
FLAGS.group('what')
FLAGS.path('checkpoint_dir', None, 'run directory, the --train_dir of `finetune train`; or a project, which '
           'stands for its run that won')
FLAGS.string('checkpoint', 'best', 'best, last or a step (without a best one, best means last)')
FLAGS.switch('averages', True, 'use the moving averages of the weights where the run has them')
FLAGS.group('answers')
FLAGS.integer('top_k', 3, 'labels a picture, the most probable first', least=1)
FLAGS.number('keep', unknown.KEEP, 'share of real pictures, those of the classes it knows, that get their label; what '
             'looks stranger than so many of them is answered `unknown`', least=0.01, most=0.9999)
FLAGS.switch('abstain', True, 'answer `unknown` at all, where the run knows what its pictures look like')
FLAGS.switch('csv', False, 'print CSV')
FLAGS.switch('jsonl', False, 'print one JSON object a line')
FLAGS.path('sort_into', None, 'directory that gets a folder for each answer, `unknown` and `no_answer` too, with the '
           'pictures that were answered so; they themselves stay where they are')
FLAGS.choice('sort_by', 'link', sorting.WAYS, 'links to where the pictures are, or copies to take along')
FLAGS.group('device')
FLAGS.integer('batch_size', 32, 'pictures at a time', least=1)
FLAGS.choice('engine', None, engines.ENGINES, engines.HELP)
FLAGS.integer('num_preprocess_threads', None, 'threads that read and decode (default: one a core)', least=1)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, predict, argv)


def predict(flags: SimpleNamespace) -> int:
    """Answers every picture in the order in which they were named; 1 if one of them could not be read."""
    _check_usage(flags)
    by = flags.sort_into and sorting.prepare(Path(flags.sort_into), flags.sort_by)
    run = Run(flags.checkpoint_dir)
    loaded = run.load(flags.checkpoint, flags.averages)
    names = run.answerable
    top_k = min(flags.top_k, len(names))
    engine = engines.choose(flags.engine, run.recipe.mixed_precision)
    say(f'{run.recipe.model} with {len(names)} classes, from {printable(loaded.path)} (step {loaded.step}), '
        f'with {engine} (--engine){_about_trust(loaded, flags)}')
    header, written = _format(flags, top_k, names.values())
    put_away = by and sorting.sorter(Path(flags.sort_into), [UNKNOWN, *names.values()], by)
    counts, others, started = collections.Counter(), folders.Others(), time.monotonic()
    placed, left_out = collections.Counter(), _left_out(flags)
    with _progress(flags.arguments, left_out) as progress:
        if header:
            show(header)
        said = answerer(loaded, names, engine, top_k, flags.keep if flags.abstain else None)
        pictures = find_pictures(flags.arguments, others, left_out)
        threads = flags.num_preprocess_threads or machine.cores()
        for batch in pipeline.answers(pictures, said, run, flags.batch_size, threads):
            show(*map(written, batch))
            counts.update(answer.rejected is None for answer in batch)
            counts[UNKNOWN] += sum(answer.is_unknown for answer in batch)
            for answer in batch if put_away else ():
                placed.update(put_away(answer.path, answer.label))
            if progress:
                progress.advance(len(batch))
    if not counts:
        raise Error(f'no pictures in {", ".join(map(printable, flags.arguments))}'
                    + (f', but {others}; convert pictures to JPEG or PNG first' if others else ''))
    if others:
        say(f'passed over, as their names claim no picture: {others}')
    seconds = time.monotonic() - started
    say(f'{count(counts[True], "picture")} in {duration(seconds)}, {counts[True] / seconds:.1f} pictures/s'
        + (f'; {counts[UNKNOWN]} unknown (--keep --noabstain)' if counts[UNKNOWN] else '')
        + (f'; without answer: {counts[False]}, their lines say why' if counts[False] else ''))
    if put_away:
        say(sorting.told(placed, Path(flags.sort_into), by))
    return 1 if counts[False] else 0


def _about_trust(loaded: Loaded, flags: SimpleNamespace) -> str:
    """How the answers are made fit to be believed."""
    if loaded.trust is None:
        return ''
    abstains = ''
    if flags.abstain and can_abstain(loaded):
        abstains = f', `unknown` keeps {flags.keep:.4g} of real pictures (--keep)'
    return f'; temperature {loaded.trust.temperature:.2f}{abstains}'


def _check_usage(flags: SimpleNamespace) -> None:
    if not flags.checkpoint_dir:
        raise UsageError('--checkpoint_dir is missing: give the --train_dir of a training')
    if not flags.arguments:
        raise UsageError('no pictures were named: give files, folders, or - for a list on stdin')
    check_checkpoint(flags.checkpoint)
    if flags.csv and flags.jsonl:
        raise UsageError('--csv and --jsonl are two formats: give one of them')
    if 'sort_by' in flags.given and not flags.sort_into:
        raise UsageError('--sort_by says how pictures get into --sort_into: give that directory too')
    for argument in filter(_left_out(flags), set(flags.arguments) - {'-'}):
        raise UsageError(f'{printable(argument)} lies in --sort_into={printable(flags.sort_into)}, where pictures go: '
                         'name another directory, or pictures elsewhere')


def _left_out(flags: SimpleNamespace) -> Callable[[str], bool]:
    """Whether a file or folder is what was sorted before, and not what is asked about."""
    return lambda path: bool(flags.sort_into) and sorting.lies_in(command.expanded(path), Path(flags.sort_into))


def _progress(arguments: Sequence[str], left_out: Callable[[str], bool]) -> contextlib.AbstractContextManager:
    """A bar while the answers go elsewhere; on a terminal they themselves show how far it is."""
    if sys.stdout.isatty() or '-' in arguments:
        return contextlib.nullcontext()
    return Progress('Predicting', sum(1 for _ in find_pictures(arguments, None, left_out)), 'pictures')


# Answers -> lines -----------------------------------------------------------------------------------------


def _format(flags: SimpleNamespace, top_k: int, names: Iterable[str]) -> tuple[str, Callable[[Answer], str]]:
    """The header, and what writes one answer as a line."""
    if flags.jsonl:
        return '', as_json
    if flags.csv:
        ranks = [f'{column}_{rank}' for rank in range(1, top_k + 1) for column in ('label', 'probability')]
        return _csv_line(['file', *ranks, 'error']), lambda answer: as_csv(answer, top_k)
    width = max(columns(printable(name)) for name in [*names, UNKNOWN])
    return '', lambda answer: as_line(answer, width)


def as_line(answer: Answer, width: int) -> str:
    """The file stands last, so that the columns are straight whatever it is called."""
    if answer.rejected:
        return f'{printable(answer.path)}: no answer: {printable(str(answer.rejected))}'
    cells = [f'{pad(printable(label), width)}  {probability:.4f}' for label, probability in answer.ranks]
    return '  '.join([*cells, printable(answer.path)])


def as_csv(answer: Answer, top_k: int) -> str:
    cells = [cell for label, probability in answer.ranks for cell in (printable(label), f'{probability:.6f}')]
    empty = [''] * (2 * top_k - len(cells))
    return _csv_line([printable(answer.path), *cells, *empty, printable(str(answer.rejected or ''))])


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='').writerow(cells)
    return text.getvalue()


def as_json(answer: Answer) -> str:
    return json.dumps(facts(answer), allow_nan=False)


if __name__ == '__main__':
    raise SystemExit(main())
