"""Trainings that are killed, stopped, resumed, that diverge or run out of disk: R11, R12, R15."""

import contextlib
import errno
import io
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from finetune import train
from finetune.console.lazy import tf
from finetune.runs.run import Run
from finetune.training import journal
from tests import toy_records
from tools.torture import children, unless, warm

EVERYTHING_ON = ('--model=toy', '--batch_size=8', '--optimizer=rmsprop', '--initial_learning_rate=0.01',
                 '--dropout=0.5', '--distortion=inception', '--log_every_steps=1')
STEPS = 24
LONGEST_SAVE, LONGEST_EPOCH = 0.02, 0.1  # Seconds, about.
INTERVAL = 3  # Steps between two checkpoints: an epoch of 24 records in batches of 8.


def variables(run: Path, step: int) -> dict[str, np.ndarray]:
    """Of a checkpoint: weights, averages, optimizer, step, seeds of dropout."""
    reader = tf.train.load_checkpoint(str(run / f'ckpt-{step}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if 'GRAPH' not in name}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def quiet_train(data: Path, run: Path, *flags: str) -> tuple[int, str]:
    """Exit code, and everything that was said."""
    assert warm, 'it adds the toy network'
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = train.main([f'--data_dir={data}', f'--train_dir={run}', *EVERYTHING_ON, *flags])
    return code, said.getvalue()


def train_in_child(data: Path, run: Path, place: Path, flag: str, file_limit: int = 0) -> int:
    """As `quiet_train`, with a checkpoint after every epoch, and a note in PLACE before and after each save."""
    journal.SECONDS_BETWEEN_SAVES = 0
    save = Run.save

    def noted(self, state):
        _note(place, f'saving {int(state.step.numpy())}')
        save(self, state)
        _note(place, f'saved {int(state.step.numpy())}')

    Run.save = noted
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    code, said = quiet_train(data, run, flag)
    with contextlib.suppress(OSError):  # Of the limit.
        (place / 'said').write_text(said[-1500:])
    return code


def _note(place: Path, line: str) -> None:
    with (place / 'notes').open('a') as file:
        file.write(f'{line}\n')


def _notes(place: Path) -> list[str]:
    path = place / 'notes'
    return path.read_text().splitlines() if path.exists() else []


# ---- R11: killed ----


def killed(place: Path, seed: int, count: int) -> Iterator[str]:
    """Half of the kills come inside a save, the others at any moment; a try that missed its moment is made again."""
    data, expected = _uninterrupted(place)
    rng, tried = random.Random(seed), 0
    while tried < count:
        inside, here = tried % 2 == 0, place / 'killed'
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        _kill(data, here, inside, rng)
        notes = _notes(here)
        if inside == (bool(notes) and notes[-1].startswith('saving')):
            tried += 1
            yield _goes_on(data, here, expected, f'kill {tried} of seed {seed}')


def _uninterrupted(place: Path) -> tuple[Path, dict]:
    data = toy_records.write(place / 'records')
    assert quiet_train(data, place / 'whole', f'--max_steps={STEPS}')[0] == 0
    return data, variables(place / 'whole', STEPS)


def _kill(data: Path, here: Path, inside: bool, rng: random.Random) -> None:
    child = children.start(train_in_child, data, here / 'run', here, f'--max_steps={STEPS}')
    try:
        notes = 2 * rng.randrange(STEPS // INTERVAL) + inside
        _wait_for(lambda: len(_notes(here)) >= notes, seconds=60)
        time.sleep(rng.uniform(0, LONGEST_SAVE if inside else LONGEST_EPOCH))
    finally:
        child.kill()


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.0005)


def _goes_on(data: Path, here: Path, expected: dict, when: str) -> str:
    """From the newest checkpoint that was there, to the same weights as if nothing had happened."""
    notes = [line.split() for line in _notes(here)]
    saved = max((int(step) for what, step in notes if what == 'saved'), default=0)
    begun = max((int(step) for _, step in notes), default=0)
    code, said = quiet_train(data, here / 'run', f'--max_steps={STEPS}')
    found = re.search(r'goes on from step (\d+)', said)
    step = int(found[1]) if found else 0
    if code or not saved <= step <= begun:
        return f'{when}: exit code {code}, from step {step}, saved {saved}, begun {begun}: {said[-500:]}'
    if list((here / 'run').glob('*_temp*')):
        return f'{when}: leftovers'
    return unless(equal(variables(here / 'run', STEPS), expected), f'{when}: other weights in the end')


# ---- R12: the state of every step ----


def resumed_from_every_step(place: Path, seed: int, count: int) -> Iterator[str]:
    """The state taken at `count` of the steps, restored, and every loss and all variables after it compared."""
    data, losses = toy_records.write(place / 'records'), {}
    with _noting_steps(losses, place / 'states'):
        assert quiet_train(data, place / 'whole', f'--max_steps={STEPS}', f'--seed={seed}')[0] == 0
    expected, former = variables(place / 'whole', STEPS), dict(losses)
    for step in range(1, STEPS, max(1, (STEPS - 1) // count)):
        run = place / str(step)
        shutil.copytree(place / 'whole', run, ignore=shutil.ignore_patterns('ckpt*', 'best*', 'metrics.csv'))
        for file in (place / 'states').glob(f'ckpt-{step}.*'):
            shutil.copy(file, run)
        losses.clear()
        with _noting_steps(losses):
            code, _ = quiet_train(data, run, f'--max_steps={STEPS}')
        rest = {number: loss for number, loss in former.items() if number > step}
        same = code == 0 and losses == rest and equal(variables(run, STEPS), expected)
        yield unless(same, f'from step {step}, seed {seed}: exit code {code}, losses {losses} and not {rest}')


@contextlib.contextmanager
def _noting_steps(losses: dict[int, float], states: Path | None = None) -> Iterator[None]:
    steps_done = journal.Journal.steps_done

    def noted(self, step, steps, loss):
        steps_done(self, step, steps, loss)
        losses[step] = float(loss)
        if states:
            self.state.all().write(str(states / f'ckpt-{step}'))

    with mock.patch.object(journal.Journal, 'steps_done', noted):
        yield


# ---- R15: diverged, full, stopped ----


def diverged(place: Path, seed: int, count: int) -> Iterator[str]:
    """The learning rate becomes 1e30 at some epoch: it stops with the next line, and what is kept is finite."""
    data = toy_records.write(place / 'records')
    rng = random.Random(seed)
    for number in range(count):
        epoch, every, run = rng.randrange(0, 6), rng.choice((1, 2, 5)), place / str(number)
        optimizer = rng.choice(('sgd', 'momentum', 'rmsprop', 'adam'))
        code, said = quiet_train(
            data, run, f'--max_steps={STEPS}', f'--log_every_steps={every}', f'--optimizer={optimizer}',
            '--learning_rate_schedule=piecewise', f'--learning_rate_pieces={epoch}:1e32')
        steps = Run(run).steps()
        finite = all(np.isfinite(value).all() for step in steps for value in variables(run, step).values())
        found = re.search(r'diverged: at step (\d+)', said)
        last = INTERVAL * epoch + 3 + max(every, INTERVAL)
        in_time = found and int(found[1]) <= last
        yield unless(code == 3 and finite and in_time and 'Traceback' not in said,
                     f'case {number} of seed {seed}: exit code {code}, checkpoints {steps}: {said[-300:]}')


def disk_full(place: Path, seed: int, count: int) -> Iterator[str]:
    """Saving fails for some checkpoints and works again: it goes on and says so. Failed it has if the last one does."""
    data, expected = _uninterrupted(place)
    rng = random.Random(seed)
    for number in range(count):
        here = place / str(number)
        failing = set(rng.sample(range(INTERVAL, STEPS, INTERVAL), 3))
        with _failing_saves(failing):
            code, said = quiet_train(data, here, f'--max_steps={STEPS}')
        warned = sum(f'step {step} could not be saved' in said for step in failing)
        same = code == 0 and warned == 3 and equal(variables(here, STEPS), expected)
        yield unless(same, f'saves {failing} failed: exit code {code}, {said[-300:]}')
    with _failing_saves({STEPS}):
        code, said = quiet_train(data, place / 'last', f'--max_steps={STEPS}')
    told = f'step {STEPS} could not be saved' in said and f'the newest checkpoint is step {STEPS - INTERVAL}' in said
    yield unless(code == 1 and told, f'the last save failed: exit code {code}: {said[-300:]}')
    for limit in (2 << 10, 8 << 10, 16 << 10)[:count]:
        yield _never_saved(data, place / f'limit{limit}', limit)


@contextlib.contextmanager
def _failing_saves(steps: set[int]) -> Iterator[None]:
    save = Run.save

    def failing(self, state):
        if int(state.step.numpy()) in steps:
            raise OSError(errno.ENOSPC, 'No space left on device')
        save(self, state)

    with mock.patch.object(Run, 'save', failing), mock.patch.object(journal, 'SECONDS_BETWEEN_SAVES', 0):
        yield


def _never_saved(data: Path, here: Path, limit: int) -> str:
    """What a training that could save nothing says in the end: that it failed."""
    here.mkdir()
    ended = children.run(train_in_child, data, here / 'run', here, f'--max_steps={STEPS}', limit)
    said = (here / 'said').read_text() if (here / 'said').exists() else ''
    right = ended.result == 1 and 'could not be saved' in said and 'should not happen' not in said
    right &= not list((here / 'run').glob('*_temp*'))  # What is left over takes the room that the next one needs.
    return unless(right, f'files of {limit} bytes: {ended.trouble} {ended.result}: {said[-600:]}')


def stopped(place: Path, seed: int, count: int) -> Iterator[str]:
    """SIGTERM, Ctrl-C and SIGHUP at any moment of the training: saved within ten seconds, and it goes on from there.

    What was said must be so: the checkpoint of the step that it stopped at is there.
    """
    data, expected = _uninterrupted(place)
    rng = random.Random(seed)
    for number in range(count):
        here, signal_number = place / str(number), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3]
        here.mkdir()
        child = children.start(train_in_child, data, here / 'run', here, f'--max_steps={STEPS}')
        _wait_for(lambda here=here: len(_notes(here)) >= 2, seconds=60)
        time.sleep(rng.uniform(0, LONGEST_EPOCH))
        os.kill(child.pid, signal_number)
        ended = child.ended(seconds=10)
        child.kill()
        if ended.result == 0:  # It was done before.
            continue
        when = f'stop {number} of seed {seed}'
        yield (unless(ended.result == 128 + signal_number, f'{when}: {ended}') or _stop_was_saved(here, when)
               or _goes_on(data, here, expected, when))


def _stop_was_saved(here: Path, when: str) -> str:
    said, steps = (here / 'said').read_text(), Run(here / 'run').steps()
    found = re.search(r'stopped at step (\d+)', said)
    return unless(found and int(found[1]) in steps, f'{when}: checkpoints {steps}, but said {said[-300:]}')
