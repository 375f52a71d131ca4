"""Checkpoints and weight files that were damaged after they were written: R13."""

import contextlib
import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.models import weights
from finetune.runs.run import Run
from finetune.runs.state import State
from finetune.training import journal, opening, pretrained
from tests import toy_records
from tools.torture import trainings, unless

GARBAGE = 7


def damaged(place: Path, seed: int, count: int) -> Iterator[str]:
    """The newest of two checkpoints, with a bit turned in two thirds of the cases and cut in the others."""
    data = toy_records.write(place / 'records')
    with mock.patch.object(journal, 'SECONDS_BETWEEN_SAVES', 0):
        assert trainings.quiet_train(data, place / 'run', '--epochs=2')[0] == 0
    run = Run(place / 'run')
    older, newest = run.steps()
    state = opening.build_state(run, 24, tf.distribute.get_strategy())
    numbers = {step: _numbers_of(run, state, f'ckpt-{step}') for step in (older, newest)}
    files = [run.directory / f'ckpt-{newest}.{part}' for part in ('index', 'data-00000-of-00001')]
    whole, rng = [file.read_bytes() for file in files], random.Random(seed)
    for number in range(count):
        for file, content in zip(files, whole, strict=True):
            _replace(file, content)
        which = number % 2
        how, content = _damage(whole[which], rng, cut=number % 3 == 2)
        _replace(files[which], content)
        yield _survived(run, state, numbers, newest, f'{files[which].name}, {how}')


def _numbers_of(run: Run, state: State, name: str) -> list[np.ndarray]:
    assert run._read(state.all(), name)
    return _values(state)


def _variables(state: State) -> list:
    optimizers = [variable for optimizer, _ in state.groups for variable in optimizer.variables]
    ours = [*state.averages.averages, state.step]
    return [variable.value for variable in (*state.model.variables, *optimizers)] + ours


def _values(state: State) -> list[np.ndarray]:
    return [variable.numpy().copy() for variable in _variables(state)]


def _replace(file: Path, content: bytes) -> None:
    file.unlink()  # The best checkpoint may be a hard link to the same bytes.
    file.write_bytes(content)


def _damage(content: bytes, rng: random.Random, cut: bool) -> tuple[str, bytes]:
    if cut:
        length = rng.randrange(len(content))
        return f'cut at {length}', content[:length]
    position, bit = rng.randrange(len(content)), rng.randrange(8)
    return f'bit {bit} of byte {position}', _with_a_bit_turned(content, position, bit)


def _with_a_bit_turned(content: bytes, position: int, bit: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1:]


def _survived(run: Run, state: State, numbers: dict, newest: int, what: str) -> str:
    for variable in _variables(state):
        variable.assign(tf.cast(tf.fill(variable.shape, GARBAGE), variable.dtype))
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        step = run.resume(state)
    same = all(map(np.array_equal, _values(state), numbers.get(step, [])))
    aloud = step == newest or f'ckpt-{newest} is damaged' in said.getvalue()
    return unless(step in numbers and same and aloud, f'{what}: step {step}, numbers right: {same}; {said.getvalue()}')


def weights_damaged(place: Path, seed: int, count: int) -> Iterator[str]:
    """The backbone that ships with the project, in a copy."""
    shutil.copytree(pretrained.SAMPLE, place / 'sample')
    file = place / 'sample' / 'backbone.weights.h5'
    whole, rng = file.read_bytes(), random.Random(seed)
    for _ in range(count):
        how, content = _damage(whole, rng, cut=False)
        file.write_bytes(content)
        try:
            weights.read(file)
            yield f'{file.name}, {how}: read in silence'
        except Error as error:
            yield unless(file.name in str(error), f'{how}: said {error}')
