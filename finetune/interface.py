"""The front door for programs, as `__main__.py` is that of the shell: the verbs with values, and a run to ask.

Names, defaults and errors of keywords are those of the verbs' flags, which are judged by the same table. What a
verb prints, it prints here too, unless the caller asks for `finetune.quiet()`.
"""

import contextlib
import importlib
import inspect
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.console import machine
from finetune.console.errors import Error, Reject
from finetune.console.terminal import count, warn
from finetune.models import engines
from finetune.predicting import answering, given, pipeline
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import run as runs

if TYPE_CHECKING:
    import keras

Directory = str | os.PathLike[str]
OF_COMMAND_LINES = ('json', 'run_once', 'eval_interval_secs', 'csv', 'jsonl', 'sort_into', 'sort_by')
OF_OPENING = ('checkpoint', 'averages')
OF_DEVICES = ('batch_size', 'engine', 'num_preprocess_threads')

_opening = threading.Lock()  # Keras builds one network at a time: names, precision and seeds are global there.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # TensorFlow's own start-up lines.
if 'keras' in sys.modules and (backend := sys.modules['keras'].backend.backend()) != 'tensorflow':
    raise Error(f'Keras was imported before finetune, with the backend {backend}: import finetune first, or set '
                'KERAS_BACKEND=tensorflow.')


@dataclass(frozen=True)
class Answer:
    """What a run says of one picture, or why it says nothing: plain values; `vars` of it is a row of a table."""

    path: str | None  # None of what was no file: bytes, images, arrays.
    label: str | None  # 'unknown' of what looks like none of the classes; None where there is an error.
    probability: float | None  # Of the label; of 'unknown', the familiarity.
    top: tuple[tuple[str, float], ...]  # The most probable classes with their probabilities, the best first.
    unknown: bool
    familiarity: float | None  # The share of real pictures that look at least as strange; None where nobody knows.
    error: str | None  # Why it is no good picture, or None.


class Run:
    """A trained run, to be asked. Several threads may ask one; its network is loaded when it is first needed."""

    def __init__(self, directory: Directory, **flags: Any):
        """`directory` is a run's, or a project's, which stands for its run that won. `flags`: `checkpoint`, `averages`.
        """
        asked = _flags('predict').take(flags, but=_all_but('predict', OF_OPENING))
        runs.check_checkpoint(asked.checkpoint)
        self._run, self._which, self._averages = runs.Run(directory), asked.checkpoint, asked.averages
        self._kept: runs.Loaded | None = None
        self._outputs: dict[str, Any] = {}  # By engine.

    @property
    def directory(self) -> Path:
        return self._run.directory

    def __fspath__(self) -> str:
        return os.fspath(self.directory)

    def __repr__(self) -> str:
        scores = self.scores
        figure = f', precision@1 {scores["figures"]["precision@1"]:.4f}' if scores else ''
        return f'<finetune.Run {str(self.directory)!r}: {self._run.recipe.model}, {len(self.labels)} classes{figure}>'

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it knows, in the order of their numbers."""
        return tuple(self._run.answerable.values())

    @property
    def scores(self) -> dict[str, Any] | None:
        """metrics.json of the newest evaluation (docs/files.md); None where there was none: `evaluate` makes one."""
        found = []
        for path in self.directory.glob('eval/*/metrics.json'):
            with contextlib.suppress(OSError, ValueError):  # Half of one that is being replaced by hand.
                found.append(json.loads(path.read_text()))
        return max(found, key=lambda metrics: metrics['time'], default=None)

    @property
    def model(self) -> 'keras.Model':
        """Images [n, size, size, 3] in [0, 1] -> logits [n, classes], the background's first."""
        return self._loaded.model

    @property
    def _loaded(self) -> runs.Loaded:
        with _opening:
            self._kept = self._kept or self._run.load(self._which, self._averages)
            return self._kept

    def predict(self, pictures: Any, **flags: Any) -> Iterator[Answer]:
        """An answer for each picture, in their order; read and answered while the answers are taken.

        `pictures` is one or several of: paths, folders (the pictures in and below them), the bytes of files, images of
        Pillow, arrays uint8 [h, w] or [h, w, 1, 3 or 4 channels], which are answered as a PNG file of them is. `flags`
        are those of `finetune predict`. What is no good picture has an `error`, and ends nothing; what is none of these
        raises TypeError.
        """
        asked = _flags('predict').take(flags, but=(*OF_COMMAND_LINES, *OF_OPENING, 'checkpoint_dir'))
        return self._answers(pictures, asked)

    def _answers(self, pictures: Any, asked: Any) -> Iterator[Answer]:
        names = self._run.answerable
        said = answering.of_outputs(self._outputs_by(asked.engine), self._loaded, names, min(asked.top_k, len(names)),
                                    asked.keep if asked.abstain else None)
        threads = asked.num_preprocess_threads or machine.cores()
        for batch in pipeline.answers(self._found(pictures), said, self._run, asked.batch_size, threads):
            yield from map(_told, batch)

    def features(self, pictures: Any, **flags: Any) -> np.ndarray:
        """What the head sees of each picture, float32 [n, c], for search and clustering.

        `pictures` as for `predict`, in their order; `flags`: `batch_size`, `engine`, `num_preprocess_threads`. The row
        of what is no good picture is not a number, which is told.
        """
        asked = _flags('predict').take(flags, but=_all_but('predict', OF_DEVICES))
        outputs_of = self._outputs_by(asked.engine)
        threads = asked.num_preprocess_threads or machine.cores()
        batches = pipeline.asked(self._found(pictures), lambda views: outputs_of(views)[1], self._run, asked.batch_size,
                                 threads)
        found = [row for batch in batches for _, row in batch]
        features = np.full((len(found), self.model.get_layer('head').input_shape[-1]), np.nan, np.float32)
        bad = [row for row in found if isinstance(row, Reject)]
        for place, row in enumerate(found):
            if not isinstance(row, Reject):
                features[place] = row
        if bad:
            warn(f'{count(len(bad), "row")} of {len(found)} are not a number, as there is no good picture: {bad[0]}')
        return features

    def evaluate(self, records: Records | Directory | None = None, **flags: Any) -> dict[str, Any]:
        """Answers every record of a split once, and returns what metrics.json holds; `flags` of `finetune eval`."""
        chosen = {'checkpoint': self._which, 'averages': self._averages}
        return evaluate(self, records, **(chosen | flags))

    def _found(self, pictures: Any) -> Iterator[Any]:
        return given.find(pictures, pipeline.limits(self._run.records.get('treatment', {})).max_bytes)

    def _outputs_by(self, asked: str | None) -> Any:
        """What runs the network; made once for each engine."""
        loaded = self._loaded
        engine = engines.choose(asked, self._run.recipe.mixed_precision)
        with _opening:
            if engine not in self._outputs:
                self._outputs[engine] = answering.outputs(loaded, engine)
            return self._outputs[engine]


def _told(answer: answering.Answer) -> Answer:
    label, likely = answer.ranks[0] if answer.ranks else (None, None)
    return Answer(answer.path or None, label, likely, tuple(answer.top), answer.is_unknown, answer.familiarity,
                  str(answer.rejected) if answer.rejected else None)


# The verbs ------------------------------------------------------------------------------------------------------------


def open(directory: Directory, **flags: Any) -> Run:
    """The run, or the run that won in a project; `flags`: `checkpoint` (best, last or a step) and `averages`."""
    return Run(directory, **flags)


def project(photos: Directory, **flags: Any) -> Run:
    """`finetune PHOTOS`: builds, checks, trains, evaluates, reports; goes on where it was stopped. The best run."""
    return Run(_module('project').make(_flags('project').take(flags, photos)))


def build(
    train_directory: Directory | None = None, output_directory: Directory | None = None, **flags: Any
) -> Records:
    """Pictures in class folders become records, as `finetune build` makes them."""
    named = {'train_directory': train_directory, 'output_directory': output_directory}
    options = _flags('build').take(flags | named, but=OF_COMMAND_LINES)
    _module('build').build(options)
    return dataset.open_records(options.output_directory)


def check(place: Records | Directory, **flags: Any) -> dict[str, Any]:
    """What harms a training on these pictures or records: what findings.json holds."""
    options = _flags('check').take(flags, place, but=(*OF_COMMAND_LINES, 'data_dir'))
    found: dict[str, Any] = _module('check').check(options)
    return found


def train(
    data_dir: Records | Directory | None = None, train_dir: Directory | None = None, **flags: Any
) -> Run:
    """Trains on records, or goes on with a training that was stopped, as `finetune train` does.

    Ctrl-C, or what a notebook calls interrupting, saves and raises Stopped; a second one is KeyboardInterrupt at once.
    """
    named = {'data_dir': data_dir, 'train_dir': train_dir}
    return Run(_module('train').train(_flags('train').take(flags | named)).directory)


def evaluate(
    checkpoint_dir: Run | Directory | None = None, data_dir: Records | Directory | None = None, **flags: Any
) -> dict[str, Any]:
    """Answers every record of a split once: what metrics.json holds."""
    named = {'checkpoint_dir': checkpoint_dir, 'data_dir': data_dir}
    options = _flags('eval').take(flags | named, but=OF_COMMAND_LINES)
    options.run_once = True
    found: dict[str, Any] = _module('eval').evaluate(options)
    return found


eval = evaluate  # The verb's name. Nothing in here calls it by that: it would look like Python's own.


def compare(*runs: Run | Records | Directory, **flags: Any) -> dict[str, Any]:
    """Which run answers the same pictures better, or which backbone suits them: what `finetune compare --json` prints.
    """
    found: dict[str, Any] = _module('compare').compare(_flags('compare').take(flags, *runs, but=OF_COMMAND_LINES))
    return found


def predict(checkpoint_dir: Directory, pictures: Any, **flags: Any) -> Iterator[Answer]:
    """The answers of `Run.predict`; who asks more than once opens the run."""
    opened = {name: flags.pop(name) for name in OF_OPENING if name in flags}
    return Run(checkpoint_dir, **opened).predict(pictures, **flags)


def export(run: Run | Directory, output: Directory | None = None, **flags: Any) -> Path:
    """Writes the run in formats that other programs read, each proven to answer as the run does."""
    written: Path = _module('export').export(_flags('export').take(flags | {'output': output}, run))
    return written


def signature(verb: str) -> inspect.Signature:
    """Of a verb, with a keyword for each of its flags."""
    positional = [each for each in inspect.signature(globals()[verb]).parameters.values()
                  if each.kind is not inspect.Parameter.VAR_KEYWORD]
    but = {*OF_COMMAND_LINES, *(each.name for each in positional)}
    return inspect.Signature([*positional, *_flags(verb).signature(but)])


def _all_but(verb: str, names: Iterable[str]) -> set[str]:
    return {flag.name for group in _flags(verb).table().values() for flag in group} - {*names}


def _flags(verb: str) -> Any:
    return _module(verb).FLAGS


def _module(verb: str) -> Any:
    """The module: under the name `finetune.VERB` type checkers see the function of here."""
    return importlib.import_module(f'finetune.{verb}')
