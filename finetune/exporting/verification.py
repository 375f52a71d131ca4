"""Whether an export answers as the run does: asked in a process of its own that does not have this project."""

import contextlib
import dataclasses
import io
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.console.terminal import printable
from finetune.evaluation import unknown
from finetune.exporting import formats
from finetune.exporting.network import Network
from finetune.models import activation, engines
from finetune.pictures.views import viewer
from finetune.records import examples
from finetune.records.dataset import Records

BATCH = 32
SHOWN = 8  # Pictures whose evidence is looked at: it is large.
TYPICAL = 200  # Training pictures that say which numbers occur.
DRAWN = 50  # Pictures, where there are no real ones.
MOST_DIFFERENCE = 1e-4  # Of logits and evidence, as a share of the largest, where that is above 1.
LEAST_AGREEMENT = 0.99  # Of float16.
MOST_FAMILIARITY_DIFFERENCE = 0.01  # Or one of the scores that it is counted by.


@dataclasses.dataclass(frozen=True)
class Pictures:
    files: list[bytes]  # JPEG or PNG, upright.
    labels: np.ndarray | None  # int [n], where they are known.
    source: str  # In words.


@dataclasses.dataclass(frozen=True)
class Answers:
    best: np.ndarray  # int [n]: the places of the most probable labels, of those that may be answered.
    logits: np.ndarray | None  # float32 [n, labels that may be answered]
    familiarity: np.ndarray | None  # [n]
    evidence: np.ndarray | None = None  # Of the first ones, [SHOWN at most, h, w, labels].


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of one format."""

    pictures: int
    milliseconds: float  # Median, from a file's bytes to the answer, one picture at a time.
    same_labels: int
    logit_difference: float | None  # The largest; None where no logits come out.
    familiarity_difference: float | None
    right: int | None  # Of the export's answers,
    right_of_run: int | None  # and of the run's, where labels are known.
    missed: tuple[str, ...]  # Of what is asked of it.


def of_records(data: Records, split: str, most: int) -> Pictures:
    """The first ones of a split."""
    records = tf.data.TFRecordDataset(data.paths(split)).take(most)
    parsed = [examples.parse(record) for record in records]
    return Pictures([one['encoded'].numpy() for one in parsed], np.array([int(one['label']) for one in parsed]),
                    f'{split} pictures of {printable(data.directory.resolve().name)}')  # No path: it is published.


def typical_views(
    data: Records, image_size: int, crop_fraction: float, most: int = TYPICAL, seed: int = 0
) -> np.ndarray:
    """Of training pictures, as evenly of all classes as there are some: float32 [n, image_size, image_size, 3]."""
    split, random = data.split('train'), np.random.default_rng(seed)
    turns, seen, found = random.permutation(len(split.per_class)), [0] * len(split.per_class), []
    ranked = sorted((rank, turns[label], label, place) for label, count in enumerate(split.per_class)
                    for rank, place in enumerate(random.permutation(count)[:most]))
    wanted = {(label, place) for _, _, label, place in ranked[:most]}
    for record in tf.data.TFRecordDataset(data.paths(split.name)):
        one = examples.parse(record)
        label = int(one['label'])
        if (label, seen[label]) in wanted:
            found.append(one['encoded'].numpy())
            if len(found) == len(wanted):
                break
        seen[label] += 1
    views_of = viewer(image_size, crop_fraction)
    return np.concatenate([views_of(tf.constant(found[start:start + BATCH])) for start in range(0, len(found), BATCH)])


def drawn(count: int, seed: int = 0) -> Pictures:
    """Soft colours of several sizes, for a run without records at hand: they show whether answers are the same."""
    random, files = np.random.default_rng(seed), []
    for number in range(count):
        coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((160 + 7 * number, 240), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
        files.append(file.getvalue())
    return Pictures(files, None, 'drawn pictures')


def of_the_run(network: Network, pictures: Pictures, path: str) -> Answers:
    """As `finetune predict` comes to them, with TensorFlow; `path` is that of the checkpoint."""
    views_of = viewer(network.image_size, network.crop_fraction)
    answers_of = engines.frozen(network.model, 'tensorflow')
    batches, found, evidence = iter(pictures.files), [], None
    for batch in iter(lambda: list(itertools.islice(batches, BATCH)), []):
        answers = answers_of(views_of(tf.constant(batch)))
        found.append([each.numpy() for each in answers[:2]])
        if evidence is None and network.shows_evidence:
            kernel = network.head.kernel.numpy()[:, list(network.names)]
            evidence = activation.evidence([each[:SHOWN] for each in answers[2:]], kernel).numpy()
    logits, features = map(np.concatenate, zip(*found, strict=True))
    if not np.isfinite(logits).all():
        raise Error(f'{printable(path)}: the outputs are not finite. Try another --checkpoint=STEP.')
    familiarity, trust = None, network.trust
    if network.can_abstain:
        familiarity = unknown.familiarity(features, logits, trust.class_means, trust.energy_weight, trust.scores)
    logits = logits[:, list(network.names)]
    return Answers(logits.argmax(axis=1), logits, familiarity, evidence)


class Trial:
    """A process that answers pictures by what was exported to one format; it is begun early, for its imports take long.
    """

    def __init__(self, format: str, private: Path):
        self._format = format
        code, self._pictures, self._results, errors = (
            private / name for name in ('code', 'pictures', 'results.npz', 'errors'))
        code.mkdir()
        self._pictures.mkdir()
        (code / 'client.py').write_text(formats.client(format))
        self._errors = errors.open('w+', errors='replace')
        program = Path(__file__).with_name('trial.py')
        self._process = subprocess.Popen(
            [sys.executable, '-P', program, code, self._pictures, self._results, *formats.FORMATS[format].reads_by],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=os.environ | {'TF_FORCE_GPU_ALLOW_GROWTH': 'true'})

    def begin(self, directory: Path, pictures: Pictures) -> None:
        """Has it answer them by the files in the directory, while the caller does something else."""
        for number, file in enumerate(pictures.files):
            (self._pictures / f'{number:06d}').write_bytes(file)
        self._tell(f'{directory.resolve()}\n')

    def wait(self) -> None:
        """Until it has answered them all."""
        if not any(line == 'answered\n' for line in self._process.stdout):
            self._fail()

    def answers(self) -> tuple[Answers, float]:
        """And the median milliseconds of one picture, measured now: nothing else should compute."""
        self._tell('\n')
        if self._process.wait():
            self._fail()
        with np.load(self._results) as found:
            answers = Answers(found['best'], found.get('logits'), found.get('familiarity'), found.get('evidence'))
            return answers, float(np.median(found['milliseconds']))

    def end(self) -> None:
        """Whatever became of it."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # It has ended; `answers` says why.
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _fail(self) -> NoReturn:
        code = self._process.wait()
        self._errors.seek(0)
        reason = (self._errors.read().strip().splitlines() or [f'exit code {code}'])[-1]
        raise Error(f'the {self._format} that was written cannot be used: {printable(reason)}')


@contextlib.contextmanager
def trials(names: Sequence[str]) -> Iterator[dict[str, Trial]]:
    """One for each format."""
    with tempfile.TemporaryDirectory() as private, contextlib.ExitStack() as ending:
        begun = {}
        for name in names:
            folder = Path(private, name)
            folder.mkdir()
            begun[name] = Trial(name, folder)
            ending.callback(begun[name].end)
        yield begun


def compare(
    network: Network, pictures: Pictures, ours: Answers, theirs: Answers, milliseconds: float, precision: str,
    max_loss: float
) -> Verdict:
    """Of the run's answers and the export's; `max_loss` of precision@1 is what 8 bits may cost."""
    difference = None if theirs.logits is None else _difference(ours.logits, theirs.logits)
    familiarity = None if theirs.familiarity is None else _difference(ours.familiarity, theirs.familiarity)
    same = int(np.sum(_same(ours, theirs, difference if precision == 'float32' else 0)))
    right, right_of_run = (_right(network, pictures, answers) for answers in (theirs, ours))
    verdict = Verdict(len(pictures.files), milliseconds, same, difference, familiarity, right, right_of_run, ())
    missed = {'float32': lambda: _missed_by_float32(network, verdict, ours, theirs),
              'float16': lambda: _missed_by_float16(verdict, theirs),
              'int8': lambda: _missed_by_int8(verdict, max_loss)}[precision]()
    return dataclasses.replace(verdict, missed=tuple(missed))


def _missed_by_float32(network: Network, verdict: Verdict, ours: Answers, theirs: Answers) -> Iterator[str]:
    allowed = _allowed(ours.logits)
    if not verdict.logit_difference <= allowed:  # Or not a number.
        yield f'a logit differs by {verdict.logit_difference:.2g}, and by {allowed:.2g} it may'
    if verdict.same_labels < verdict.pictures:
        yield f'{verdict.pictures - verdict.same_labels} of {verdict.pictures} pictures get another label'
    if network.shows_evidence and not _difference(ours.evidence, theirs.evidence) <= _allowed(ours.evidence):
        yield (f'evidence differs by {_difference(ours.evidence, theirs.evidence):.2g}, and by '
               f'{_allowed(ours.evidence):.2g} it may')
    if network.can_abstain:
        allowed = max(MOST_FAMILIARITY_DIFFERENCE, 1.01 / (len(network.trust.scores) + 1))
        if not verdict.familiarity_difference <= allowed:
            yield f'familiarity differs by {verdict.familiarity_difference:.2g}, and by {allowed:.2g} it may'


def _missed_by_float16(verdict: Verdict, theirs: Answers) -> Iterator[str]:
    if not np.isfinite(theirs.logits).all():
        yield 'outputs are not finite numbers'
    if verdict.same_labels < LEAST_AGREEMENT * verdict.pictures:
        yield (f'{verdict.pictures - verdict.same_labels} of {verdict.pictures} pictures get another label, and '
               f'{1 - LEAST_AGREEMENT:.0%} of them may')


def _missed_by_int8(verdict: Verdict, max_loss: float) -> Iterator[str]:
    lost = (verdict.right_of_run - verdict.right) / verdict.pictures
    if lost > max_loss:
        yield f'precision@1 is {lost:.4f} below that of the run, and {max_loss:.4g} it may be (--max_loss)'


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())


def _allowed(ours: np.ndarray) -> float:
    return MOST_DIFFERENCE * max(1.0, float(np.abs(ours).max()))


def _same(ours: Answers, theirs: Answers, rounding: float) -> np.ndarray:
    """Whether both answer the same label, or one that is as good as the other within what rounding makes of it."""
    answered = np.take_along_axis(ours.logits, theirs.best[:, None], axis=1)[:, 0]
    return answered >= ours.logits.max(axis=1) - 2 * min(rounding, MOST_DIFFERENCE)


def _right(network: Network, pictures: Pictures, answers: Answers) -> int | None:
    if pictures.labels is None:
        return None
    return int(np.sum(np.array(list(network.names))[answers.best] == pictures.labels))
