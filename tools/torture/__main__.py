"""Does to the project what it promises to survive, and prints one table: figure, what, tried, survived, seconds.

    python -m tools.torture                      everything: about an hour
    python -m tools.torture R6 R8 --seed=1       two figures
    python -m tools.torture R4 --count=500       fewer cases

What goes wrong stands on stderr, one line a case; the exit code is then 1. A figure that needs root, or the corpus of
odd files at ../shared/tools/make_bad_images.py, is not tried without. docs/reliability.md holds the table.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.console import machine
from finetune.console.terminal import printable
from tests import corpus
from tools.torture import builds, checkpoints, hostile, names, one_answer, pictures, reading, serving, teams, trainings


class Figure(NamedTuple):
    name: str
    what: str
    cases: Callable[[Path, int, int], Iterator[str]]  # (an empty folder, seed, count) -> lines
    count: int = 0  # 0: as many as there are.
    needs: str = ''  # A key of HAVE; without it the figure is not tried.


ROOT, CORPUS, SERVER = 'root', 'the corpus of odd files', 'starlette, uvicorn and openvino'
HAVE = {ROOT: os.geteuid() == 0, CORPUS: corpus.MAKER.exists(),
        SERVER: all(map(importlib.util.find_spec, ('starlette', 'uvicorn', 'openvino')))}


FIGURES = [
    Figure('R1-R3', 'the corpus and its hazards in 8 GB and 300 s: every file a right picture or a reason, counted',
           pictures.corpus_becomes_records, needs=CORPUS),
    Figure('R4', 'mutants of good pictures: no death, no hang, the same verdict twice', pictures.mutants, 20_000),
    Figure('R5', 'folder trees and labels files: taken, or refused with a sentence that names them',
           pictures.folders_and_labels, needs=CORPUS),
    Figure('R6', 'kill -9 of a build: the old set or the new one, and the next build cleans up', builds.killed, 100),
    Figure('R7', 'the same bytes with 1, 3 and 8 processes', builds.same_bytes, 20),
    Figure('R8', 'a bit turned in every byte of a shard set, and every cut: noticed at or before it',
           reading.every_byte),
    Figure('R9', 'a disk that is full at any write: exit code 1, one sentence, the old set intact',
           builds.disk_full, 60),
    Figure('R9', 'the same on small disks (as root)', builds.small_disks, needs=ROOT),
    Figure('R10', 'two builds at once: one refused, the set whole', builds.two_at_once, 20),
    Figure('R11', 'kill -9 of a training, half of them inside a save: it goes on from the newest checkpoint, to the '
           'same weights', trainings.killed, 50),
    Figure('R12', 'the state of every step of 24, restored: every later loss and all variables the same bits',
           trainings.resumed_from_every_step, 23),
    Figure('R13', 'bits turned in a checkpoint and cuts of it: the numbers that were saved, or those of the one '
           'before, aloud', checkpoints.damaged, 150),
    Figure('R13', 'bits turned in our own .weights.h5: noticed', checkpoints.weights_damaged, 100),
    Figure('R14', 'hostile files and runs for --pretrained: refused in 2 s and 1 GB, nothing outside read or touched',
           hostile.refused),
    Figure('R15', 'a loss that becomes infinite: exit code 3, all that is kept is finite', trainings.diverged, 20),
    Figure('R15', 'a disk that is full while saving: goes on, says so, tries again', trainings.disk_full, 5),
    Figure('R15', 'SIGTERM, Ctrl-C and SIGHUP: saved within 10 s, exit code 143, 130 or 129, goes on',
           trainings.stopped, 20),
    Figure('R16', 'mixed requests to finetune serve from 8 clients, then 60 that stall: the answers of predict, no '
           'failure, memory flat', serving.asked_by_everyone, 1000, needs=SERVER),
    Figure('R17', 'hostile names of files and classes: no broken line, CSV or JSON', names.everywhere),
    Figure('R18', 'one picture in training, eval and predict: the same logits to 1e-5', one_answer.everywhere),
    Figure('R21', 'two machines, one of them stopped or killed -9: the other ends in 15 s and says from where it goes '
           'on; it does, to the same bits', teams.ended_early, 12),
]
TOGETHER = dict.fromkeys(('R1', 'R2', 'R3'), 'R1-R3')


def tortured(figure: Figure, seed: int, count: int) -> tuple[int, int, float]:
    """Tried, survived, seconds."""
    started, tried, wrong = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix='torture-') as place:
        for line in _cases(figure, Path(place), seed, count):
            tried += 1
            if line:
                wrong += 1
                print(f'{figure.name}: {printable(line)}', file=sys.stderr, flush=True)
    return tried, tried - wrong, time.monotonic() - started


def _cases(figure: Figure, place: Path, seed: int, count: int) -> Iterator[str]:
    """What a torture itself raises is one failed case, and the next figure comes."""
    try:
        yield from figure.cases(place, seed, count)
    except Exception as error:
        yield f'the torture ended with {type(error).__name__}: {error}'


def main(arguments: Sequence[str] | None = None) -> int:
    names = list(dict.fromkeys(figure.name for figure in FIGURES))
    parser = argparse.ArgumentParser(prog='python -m tools.torture', description=__doc__.splitlines()[0])
    parser.add_argument('figures', nargs='*', metavar='FIGURE', help=' '.join(names))
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--count', type=_positive, help='cases of each figure, where it has a number of its own')
    options = parser.parse_args(arguments)
    wanted = [TOGETHER.get(name, name) for name in options.figures] or names
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f'no figure is called {" ".join(unknown)}; there are {" ".join(names)}')
    print('| figure | what | tried | survived | seconds |\n|---|---|---|---|---|', flush=True)
    all_survived = True
    for figure in FIGURES:
        if figure.name in wanted:
            all_survived &= _told(figure, options.seed, options.count or figure.count)
    print(f'\nseed {options.seed}; {machine.describe()}; {machine.versions()}', flush=True)
    return 0 if all_survived else 1


def _told(figure: Figure, seed: int, count: int) -> bool:
    """Prints the figure's line; whether nothing went wrong."""
    if figure.needs and not HAVE[figure.needs]:
        print(f'| {figure.name} | {figure.what} | not tried: needs {figure.needs} | | |', flush=True)
        return True
    tried, survived, seconds = tortured(figure, seed, count)
    print(f'| {figure.name} | {figure.what} | {tried:,} | {survived:,} | {seconds:.0f} |', flush=True)
    return 0 < tried == survived


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text} is not a number above 0')
    return int(text)


if __name__ == '__main__':
    raise SystemExit(main())
