"""Trainings of several machines, played by processes of this one, that are killed or stopped: R21."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.runs.run import Run
from tests import toy_records
from tools.torture import unless
from tools.torture.trainings import EVERYTHING_ON, equal, variables

STEPS = 60
LONGEST_END = 15  # Seconds from a kill to the end of the others.
LONGEST_RUN = 120
ROOT = Path(__file__).parents[2]
TRAIN = 'from tools.torture import warm; from finetune import train; raise SystemExit(train.main())'


def free_addresses(count: int) -> list[str]:
    """On this machine. Nobody holds them any more, so that another process may take one: rarely."""
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    addresses = [f'127.0.0.1:{each.getsockname()[1]}' for each in sockets]
    for each in sockets:
        each.close()
    return addresses


class Machines:
    """So many processes, each with the same command and its own TF_CONFIG; what each says lies in PLACE/said.I."""

    def __init__(
        self, place: Path, count: int, flags: Sequence[str], typed_there: dict[int, Sequence[str]] | None = None
    ):
        place.mkdir(parents=True, exist_ok=True)
        self.place, addresses = place, free_addresses(count)
        self.processes = []
        for index in range(count):
            config = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
            environment = os.environ | {'TF_CONFIG': json.dumps(config), 'PYTHONUNBUFFERED': '1',
                                        'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
            with (place / f'said.{index}').open('wb') as said:
                self.processes.append(subprocess.Popen(
                    [sys.executable, '-c', TRAIN, *flags, *(typed_there or {}).get(index, ())], env=environment,
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT))

    def __enter__(self) -> 'Machines':
        return self

    def __exit__(self, *_) -> None:
        for each in self.processes:
            each.kill()
            each.wait()

    def said(self, index: int) -> str:
        return (self.place / f'said.{index}').read_text(errors='replace')

    def step(self) -> int:
        """The last that the chief told of."""
        return int((re.findall(r': step (\d+), loss', self.said(0)) or [0])[-1])

    def wait_for_step(self, step: int) -> None:
        end = time.monotonic() + LONGEST_RUN
        while self.step() < step and all(each.poll() is None for each in self.processes) and time.monotonic() < end:
            time.sleep(0.005)

    def ended(self, seconds: float = LONGEST_RUN) -> list[int | None]:
        """The exit codes; None of one that did not end in time."""
        end = time.monotonic() + seconds
        while any(each.poll() is None for each in self.processes) and time.monotonic() < end:
            time.sleep(0.05)
        return [each.poll() for each in self.processes]


def flags_of(data: Path, run: Path) -> list[str]:
    """A checkpoint after every epoch, that is, after every third step."""
    return [f'--data_dir={data}', f'--train_dir={run}', *EVERYTHING_ON, f'--max_steps={STEPS}',
            '--save_interval_secs=0']


def ended_early(place: Path, seed: int, count: int) -> Iterator[str]:
    """SIGTERM or Ctrl-C to one of two, kill -9 of the second, kill -9 of the chief, in turn and at random steps.

    The others end in time, with a sentence that says from where the same command goes on; so it does, to the same bits.
    """
    data = toy_records.write(place / 'records')
    with Machines(place / 'whole', 2, flags_of(data, place / 'whole/run')) as machines:
        if machines.ended() != [0, 0]:
            yield f'uninterrupted: {machines.ended()}: {machines.said(0)[-500:]} {machines.said(1)[-500:]}'
            return
    expected, rng = variables(place / 'whole/run', STEPS), random.Random(seed)
    for number in range(count):
        here = place / str(number)
        shutil.rmtree(here, ignore_errors=True)
        victim = (rng.randrange(2), 1, 0)[number % 3]
        sent = (rng.choice((signal.SIGTERM, signal.SIGINT)), signal.SIGKILL, signal.SIGKILL)[number % 3]
        when = f'case {number} of seed {seed}, {sent.name} to {victim}'
        yield _ends(here, data, victim, sent, rng, when) or _goes_on(here, data, expected, when)


def _ends(here: Path, data: Path, victim: int, sent: signal.Signals, rng: random.Random, when: str) -> str:
    with Machines(here / 'ended', 2, flags_of(data, here / 'run')) as machines:
        machines.wait_for_step(rng.randrange(1, STEPS - 10))
        os.kill(machines.processes[victim].pid, sent)
        codes = machines.ended(LONGEST_END)
        said = [machines.said(0), machines.said(1)]
    steps = Run(here / 'run').steps()
    if sent == signal.SIGKILL:
        survivor = 1 - victim
        name = f'{("the chief", "worker 1")[victim]} \\(127.0.0.1:\\d+\\) (is gone|has not been heard of)'
        way_out = f'goes on from step {steps[-1]}' if steps else 'begins anew'
        right = codes[survivor] == 1 and re.search(f'error: {name}.*{way_out}', said[survivor])
    else:
        told = f'stopped at step {steps[-1]}, which is saved'
        right = codes == [128 + sent] * 2 and all(told in each for each in said)
    return unless(bool(right), f'{when}: {codes}, checkpoints {steps}: {said[0][-400:]} | {said[1][-400:]}')


def _goes_on(here: Path, data: Path, expected: dict, when: str) -> str:
    with Machines(here / 'again', 2, flags_of(data, here / 'run')) as machines:
        codes = machines.ended()
        if codes != [0, 0]:
            return f'{when}: went on to {codes}: {machines.said(0)[-400:]} | {machines.said(1)[-400:]}'
    return unless(equal(variables(here / 'run', STEPS), expected), f'{when}: other values in the end')
