"""`finetune predict`: a run and pictures -> labels."""

import collections
import contextlib
import csv
import io
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from finetune.building.sources import folders
from finetune.console import command, machine
from finetune.console.errors import Error, Reject, UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import Progress, columns, count, duration, pad, printable, say
from finetune.evaluation import metrics, unknown
from finetune.evaluation.results import json_text
from finetune.models import cuts, engines
from finetune.pictures import disk, gate
from finetune.pictures.views import decode, viewer
from finetune.predicting import sorting
from finetune.predicting.asked import Named, find_pictures
from finetune.runs.run import Loaded, Run, check_checkpoint

LIMITS = {'max_bytes', 'max_pixels'}  # Of a treatment; the rest of it says how a picture is stored.
UNKNOWN = 'unknown'  # The label of a picture of none of the classes.
WAYS_OUT = {'too_many_pixels': 'shrink it first', 'file_too_big': 'save it smaller first'}  # By reason.

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


@dataclass(frozen=True)
class Answer:
    """What is said of one file: labels with their probabilities, or why there are none.

    `familiarity` is the share of real pictures that look at least as strange; None where nobody knows.
    """

    path: str
    top: list[tuple[str, float]]
    rejected: Reject | None = None
    familiarity: float | None = None
    is_unknown: bool = False

    @property
    def ranks(self) -> list[tuple[str, float]]:
        """The same of a picture that is of no class: first that, and how likely a real one looks so strange."""
        return [(UNKNOWN, self.familiarity), *self.top][:len(self.top)] if self.is_unknown else self.top

    @property
    def label(self) -> str | None:
        return None if self.rejected else self.ranks[0][0]


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
    say(f'{run.recipe.model} with {len(names)} classes, from {printable(loaded.path)} (step {loaded.step}), '
        f'with {_engine(flags, run)} (--engine){_about_trust(loaded, flags)}')
    header, written = _format(flags, top_k, names.values())
    put_away = by and sorting.sorter(Path(flags.sort_into), [UNKNOWN, *names.values()], by)
    counts, others, started = collections.Counter(), folders.Others(), time.monotonic()
    placed, left_out = collections.Counter(), _left_out(flags)
    with _progress(flags.arguments, left_out) as progress:
        if header:
            print(header)
        for batch in answers(find_pictures(flags.arguments, others, left_out), loaded, run, flags):
            print(*map(written, batch), sep='\n', flush=True)
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


def _engine(flags: SimpleNamespace, run: Run) -> str:
    return engines.choose(flags.engine, run.recipe.mixed_precision)


def _about_trust(loaded: Loaded, flags: SimpleNamespace) -> str:
    """How the answers are made fit to be believed."""
    if loaded.trust is None:
        return ''
    abstains = f', `unknown` keeps {flags.keep:.4g} of real pictures (--keep)' if _abstains(loaded, flags) else ''
    return f'; temperature {loaded.trust.temperature:.2f}{abstains}'


def _abstains(loaded: Loaded, flags: SimpleNamespace) -> bool:
    return flags.abstain and loaded.trust is not None and loaded.trust.can_abstain


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


# Pictures -> what the network sees -----------------------------------------------------------------------


def _admitted(path: str, treatment: dict) -> bytes | Reject:
    """The picture as it would stand in records that were made with this treatment, or why it would not."""
    limits = gate.Limits(**{name: value for name, value in treatment.items() if name in LIMITS})
    stored = {name: value for name, value in treatment.items() if name not in LIMITS}
    try:
        return gate.admit(disk.read(path, limits), limits=limits, **stored).encoded
    except Reject as reject:
        way_out = WAYS_OUT.get(reject.reason)
        return Reject(reject.reason, f'{reject.detail}; {way_out}') if way_out else reject


def _decodable(encoded: bytes | Reject) -> bytes | Reject:
    """The picture, or a Reject where the decoder refuses what the gate let in."""
    try:
        if not isinstance(encoded, Reject):
            decode(encoded)
        return encoded
    except tf.errors.InvalidArgumentError as error:
        return Reject('corrupt', error.message.splitlines()[0])


def _ahead(work: Callable, items: Iterable, threads: int, most: int) -> Iterator:
    """(item, work(item)) in order. Threads work ahead of the reader, on `most` items and no more."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > most:
                item, future = waiting.popleft()
                yield item, future.result()
        for item, future in waiting:
            yield item, future.result()


# Pictures -> answers --------------------------------------------------------------------------------------


def answers(pictures: Iterable[Named], loaded: Loaded, run: Run, flags: SimpleNamespace) -> Iterator[list[Answer]]:
    """Batch by batch, every picture in its order. While the network is at one batch, threads prepare the next."""
    answers_of = engines.frozen(cuts.with_features(loaded.model), _engine(flags, run))
    views_of, names = viewer(run.recipe.image_size, run.recipe.crop_fraction), run.answerable
    threads = flags.num_preprocess_threads or machine.cores()
    treatment = run.records.get('treatment', {})  # Older runs do not say.
    admitted = _ahead(lambda named: named.rejected or _admitted(named.path, treatment), pictures, threads,
                      most=2 * flags.batch_size)
    batches = iter(lambda: list(itertools.islice(admitted, flags.batch_size)), [])
    for _, (batch, views) in _ahead(lambda batch: _viewed(batch, views_of), batches, threads=1, most=1):
        found = iter(_answered(answers_of(views), loaded, names, flags) if len(views) else ())
        yield [Answer(named.path, [], seen) if isinstance(seen, Reject) else Answer(named.path, **next(found))
               for named, seen in batch]


def _answered(outputs: tuple, loaded: Loaded, names: dict[int, str], flags: SimpleNamespace) -> list[dict]:
    """What an `Answer` says of each picture, from the network's logits and features."""
    logits, features = (output.numpy() for output in outputs)
    if not np.isfinite(logits).all():
        raise Error(f'{printable(loaded.path)}: the outputs are not finite. Try another --checkpoint=STEP.')
    trust = loaded.trust
    tops = top(logits / (trust.temperature if trust else 1.0), names, flags.top_k)
    if not _abstains(loaded, flags):
        return [{'top': each} for each in tops]
    familiarity = unknown.familiarity(features, logits, trust.class_means, trust.energy_weight, trust.scores)
    background = names.get(0)  # Where the run has pictures of it: as good a name for none of the others.
    return [{'top': each, 'familiarity': familiar,
             'is_unknown': familiar <= 1 - flags.keep and each[0][0] != background}
            for each, familiar in zip(tops, familiarity.tolist(), strict=True)]


def _viewed(batch: list[tuple[Named, bytes | Reject]], views_of: Callable) -> tuple:
    """The batch, and the views of its good pictures. One that the decoder refuses becomes a Reject."""
    encoded = [found for _, found in batch if not isinstance(found, Reject)]
    try:
        return batch, views_of(tf.constant(encoded, tf.string))
    except tf.errors.InvalidArgumentError:  # It does not say which one.
        return _viewed([(named, _decodable(found)) for named, found in batch], views_of)


def top(logits: np.ndarray, names: dict[int, str], k: int) -> list[list[tuple[str, float]]]:
    """The k best of the named classes for each picture; probabilities are over all outputs, as in evaluation."""
    numbers = np.array(list(names))
    likely = metrics.probabilities(logits)
    best = numbers[metrics.ranked(logits[:, numbers], k)]
    return [[(names[n], float(row[n])) for n in order] for order, row in zip(best.tolist(), likely, strict=True)]


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
    if answer.rejected:
        found = {'error': answer.rejected.reason, 'detail': json_text(answer.rejected.detail)}
    else:
        found = {'answers': [{'label': label, 'probability': likely} for label, likely in answer.top]}
        if answer.familiarity is not None:
            found |= {'unknown': answer.is_unknown, 'familiarity': answer.familiarity}
    return json.dumps({'file': json_text(answer.path), **found}, allow_nan=False)


if __name__ == '__main__':
    raise SystemExit(main())
