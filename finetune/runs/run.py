"""A run: the directory of one training. Recipe, labels, checkpoints, and the only code that writes or reads them."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from finetune.console import files, locks, machine
from finetune.console.errors import Error, UsageError
from finetune.console.files import write_atomically
from finetune.console.lazy import tf
from finetune.console.terminal import printable, some, warn
from finetune.models import classifier
from finetune.models.averages import Averages
from finetune.records.dataset import check_treatment
from finetune.runs import checkpoint, trust, winner
from finetune.runs import recipe as recipes
from finetune.runs.state import State, build_model
from finetune.runs.trust import Trust

KEPT = 3  # Newest checkpoints that stay; the best one stays beside them.


def check_checkpoint(which: str) -> None:
    """Raises UsageError unless `which` is something that `Run.load` takes."""
    if which not in ('best', 'last') and not which.isdecimal():
        raise UsageError(f'--checkpoint={printable(which)} is not understood: expected best, last, or a step')


@dataclasses.dataclass(frozen=True)
class Loaded:
    model: object
    step: int
    path: str
    trust: Trust | None = None  # Of the averages.


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Keeps a second training out of a run's directory; it goes with the process, however that ends."""
    is_new = files.prepare(directory, 'the run is written there', '--train_dir')
    try:
        with locks.held(directory / '.lock', lambda pid: _refuse(directory, pid)), files.naming(directory):
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # Not empty, as it should be; it is where a flag was wrong.
                directory.rmdir()


def _refuse(directory: Path, pid: str) -> NoReturn:
    raise Error(f'another training (pid {pid}) is writing to {printable(directory)}. Wait for it, or use another '
                '--train_dir.')


class Run:
    """A run that exists. `create` makes one."""

    def __init__(self, directory: str | os.PathLike):
        """`directory` is the run's, or that of a project, which stands for its run that won."""
        self.directory = winner.directory_of_run(Path(directory))
        self._file = self.directory / 'recipe.json'
        if not self.exists(directory):
            raise Error(f'{printable(self.directory)} is not a run: it has no recipe.json. '
                        'Give the --train_dir of a `finetune train` command.')

    @staticmethod
    def exists(directory) -> bool:
        return (winner.directory_of_run(Path(directory)) / 'recipe.json').is_file()  # No FIFO: it would be waited for.

    @classmethod
    def create(cls, directory, recipe: recipes.Recipe, labels: tuple[str, ...], records: dict) -> 'Run':
        """`records` is what the run remembers of its data: fingerprint, treatment, training pictures per class.

        Raises Error where there are checkpoints of another run, which would pass for those of this one, and where none
        could be read.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with checkpoint.taken_literally(directory):
            pass  # Now: not after a long training.
        there = sorted(path.stem for path in directory.glob('*-*.index'))
        if there:
            raise Error(f'{printable(directory)} has {some(there)} of another training, which cannot go on from there. '
                        'Use another --train_dir.')
        names = ''.join(f'{label}\n' for label in labels[1:])
        write_atomically(directory / 'labels.txt', names.encode())
        versions = {name: metadata.version(name) for name in ('tensorflow', 'keras', 'numpy')}
        facts = {'labels': list(labels), 'records': records, 'kernels': machine.kernels(), 'versions': versions}
        _write_facts(directory / 'recipe.json', recipe, facts)
        return cls(directory)

    @functools.cached_property
    def _facts(self) -> dict:
        try:
            facts = json.loads(self._file.read_text())
            kinds = {'recipe': dict, 'labels': list, 'records': dict}
            missing = [name for name, kind in kinds.items() if not isinstance(facts.get(name), kind)]
        except (ValueError, OSError, RecursionError, AttributeError) as error:
            raise Error(f'{printable(self._file)} cannot be read ({printable(str(error))}). Restore it, '
                        'or train into another --train_dir.') from None
        if missing:
            raise Error(f'{printable(self._file)} has no {", ".join(missing)}: this program did not write it. '
                        'Restore it, or train into another --train_dir.')
        try:
            check_treatment(facts['records'].get('treatment', {}))  # Runs of old do not say.
        except ValueError as error:
            raise Error(f'{printable(self._file)}: its treatment of pictures makes no sense ({printable(str(error))}). '
                        'Restore it, or train into another --train_dir.') from None
        return facts

    @property
    def recipe(self) -> recipes.Recipe:
        return recipes.Recipe.from_json(self._facts['recipe'], self._file)

    @property
    def labels(self) -> tuple[str, ...]:
        """Index 0 is 'background'."""
        return tuple(self._facts['labels'])

    @property
    def answerable(self) -> dict[int, str]:
        """The labels by number; a background without training pictures is switched off in the network and not there."""
        return {number: label for number, label in enumerate(self.labels) if number or self.records['per_class'][0]}

    @property
    def records(self) -> dict:
        """What the run remembers of its data: `fingerprint`, `per_class` (training pictures a label), and `treatment`:
        how the gate made the stored pictures of the files.
        """
        return self._facts['records']

    @property
    def kernels(self) -> str | None:
        """`machine.kernels` of the training that went on last; None of runs of old."""
        return self._facts.get('kernels')

    def change(self, recipe: recipes.Recipe, records: dict, kernels: str) -> None:
        if (recipe, records, kernels) != (self.recipe, self.records, self.kernels):
            _write_facts(self._file, recipe, self._facts | {'records': records, 'kernels': kernels})
            del self._facts

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return self._steps('ckpt')

    @property
    def best_step(self) -> int | None:
        return max(self._steps('best'), default=None)

    def _steps(self, kind: str) -> list[int]:
        found = (re.fullmatch(rf'{kind}-(\d+)\.index', path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, state: State) -> None:
        step = int(state.step.numpy())
        try:
            checkpoint.write(state.all(), self.directory / f'ckpt-{step}')
        except BaseException:
            self._clear()  # Of a full disk, it takes the room that the next one needs.
            raise
        for old in self.steps()[:-KEPT]:
            self._remove('ckpt', old)

    def keep(self, step: int) -> None:
        """The checkpoint of `step` stays for good, under another name, when newer ones push it out."""
        self._link(step, 'kept')

    def keep_as_best(self, step: int) -> None:
        """The checkpoint of `step` stays until a better one comes.

        The former best goes last: there is one at any moment. Nothing happens where `step` was not saved.
        """
        self._link(step, 'best')
        for old in self._steps('best') if step in self._steps('best') else []:
            if old != step:
                self._remove('best', old)

    def _link(self, step: int, kind: str) -> None:
        for file in self._files('ckpt', step) if step in self.steps() else []:
            link = file.with_name(file.name.replace('ckpt-', f'{kind}-', 1))
            link.unlink(missing_ok=True)
            try:
                os.link(file, link)
            except OSError:  # A file system without hard links.
                write_atomically(link, file.read_bytes())

    def _files(self, kind: str, step: int) -> list[Path]:
        """Data before index: a checkpoint without its index does not count."""
        return sorted(self.directory.glob(f'{kind}-{step}.*'))

    def _remove(self, kind: str, step: int) -> None:
        for file in reversed(self._files(kind, step)):
            file.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Removes what is left of saves that were killed or failed."""
        for leftover in self.directory.glob('ckpt-*_temp*'):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self.directory.glob('.*.tmp'):
            leftover.unlink(missing_ok=True)

    def resume(self, state: State) -> int | None:
        """Restores the newest checkpoint that is whole; None when there is none at all."""
        self._clear()
        steps = self.steps()
        for step in reversed(steps):
            if self._read(state.all(), f'ckpt-{step}'):
                classifier.settle(state.model)
                return step
        if steps:
            raise Error(f'none of the {len(steps)} checkpoints in {printable(self.directory)} can be read, for the '
                        'reasons above. Restore one, or train into another --train_dir.')
        return None

    def load(
        self, which: str | int = 'best', averages: bool = True, strategy=None, in_float32: bool = False
    ) -> Loaded:
        """The trained model: of the best checkpoint, the last one, or the one of a step.

        Its weights are float32 whatever it computes in: `in_float32` it computes in that too, however it was trained.
        'best' means the last one where nothing was measured while training. Raises `Error` when there is none, or when
        the one that was asked for is gone or damaged.
        """
        recipe = dataclasses.replace(self.recipe, mixed_precision=False) if in_float32 else self.recipe
        model = build_model(recipe, len(self.labels), strategy)
        averaged = averages and self.recipe.moving_average_decay > 0
        state = State(model, averages=Averages(model, self.recipe.moving_average_decay) if averaged else None)
        names = self.candidates(which)
        for name in names:
            if self._read(state.weights(averages=averaged), name):
                if averaged:
                    state.averages.apply()
                classifier.settle(model)
                if not state.is_finite():
                    raise Error(f'{printable(self.directory / name)}: its weights are not finite numbers. '
                                'Name another one with --checkpoint=STEP.')
                step = int(state.step.numpy())
                is_fitted_to = averaged or not self.recipe.moving_average_decay
                return Loaded(model, step, str(self.directory / name),
                              trust.read(self.directory, step) if is_fitted_to else None)
        steps = ', '.join(map(str, self.steps()))
        if names and steps:
            raise Error(f'{some(names)} in {printable(self.directory)} cannot be read, for the reasons above. Restore '
                        f'one, or name another with --checkpoint=STEP: it has steps {steps}.')
        raise Error(f'no checkpoint file found in {printable(self.directory)} for --checkpoint={which}: it has steps '
                    f'{steps or "none"}. Train first, or name one of these.')

    def candidates(self, which: str | int) -> list[str]:
        """The names of the checkpoints that `load` tries, in its order."""
        last = [f'ckpt-{step}' for step in reversed(self.steps())]
        if which == 'last':
            return last
        if which == 'best':
            return [f'best-{step}' for step in reversed(self._steps('best'))] or last
        return [f'{kind}-{which}' for kind in ('ckpt', 'best', 'kept') if int(which) in self._steps(kind)]

    def _read(self, values: 'tf.train.Checkpoint', name: str) -> bool:
        path = self.directory / name
        try:
            checkpoint.read(values, path)
            return True
        except (Error, OSError, MemoryError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError):
            raise  # They say nothing of the file.
        except tf.errors.NotFoundError:
            is_there = path.with_name(f'{name}.index').exists()
            verdict = 'is there, but TensorFlow does not find it' if is_there else 'is gone'
        except Exception as error:  # Of many kinds: whatever a reader raises on damaged bytes is a verdict on them.
            reason = printable(str(error).partition('\n')[0])[:200]
            verdict = f'is damaged or incomplete ({reason})'
        warn(f'{printable(path)} {verdict}; looking for another one')
        return False


def _write_facts(path: Path, recipe: recipes.Recipe, facts: dict) -> None:
    text = json.dumps({**facts, 'recipe': dataclasses.asdict(recipe)}, indent=2)
    write_atomically(path, f'{text}\n'.encode())
