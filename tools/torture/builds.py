"""Builds that are killed, that run out of disk, that meet each other: R6, R7, R9 and R10."""

import contextlib
import functools
import io
import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from finetune import build
from finetune.console.errors import Error
from finetune.records import dataset
from tests import toy, toy_build
from tools.torture import together, unless

LEAST_AT_RANDOM = 0.2  # Of the kills: at any moment, with worker processes at work.
TMPFS_STEP = 16 << 10


class Case:
    """Records that stand there, and the pictures of another set that is to replace them."""

    def __init__(self, place: Path, format: str = 'JPEG', pictures: int = 12, output: Path | None = None):
        self.place, self.output = place, output or place / 'records' / 'toy'
        self.former = toy.class_folders(place / 'former', {'cat': 3, 'dog': 3})
        self.pictures = toy.class_folders(place / 'pictures', {'cat': pictures // 2, 'dog': pictures // 2}, first=50)
        if format != 'JPEG':
            for path in self.pictures.glob('*/*.jpg'):
                path.write_bytes(toy.encoded(toy.picture(int(path.stem)), format))

    @functools.cached_property
    def old(self) -> dict[str, str]:
        return build_quietly(self.former, self.place / 'known' / 'old')

    @functools.cached_property
    def new(self) -> dict[str, str]:
        return build_quietly(self.pictures, self.place / 'known' / 'new')

    def build(self, pictures: Path) -> dict[str, str]:
        return build_quietly(pictures, self.output)

    def stands(self) -> dict[str, str]:
        return toy_build.digests(self.output) if self.output.exists() else {}

    def kept_aside(self) -> dict[str, str]:
        """Where two names cannot be exchanged, the old set has another name for a moment."""
        aside = self.output.with_name(f'.{self.output.name}.old')
        return toy_build.digests(aside) if aside.exists() else {}


def build_quietly(pictures: Path, output: Path) -> dict[str, str]:
    """In this process; what then stands there."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        code = build.main([f'--train_directory={pictures}', f'--output_directory={output}', '--num_threads=1'])
    assert code == 0
    return toy_build.digests(output)


# ---- R6: killed ----


def killed(place: Path, seed: int, count: int) -> Iterator[str]:
    """Before each step on the disk once, in both ways to replace the old set; the rest at random in a longer build."""
    at_random = round(LEAST_AT_RANDOM * count)
    case = Case(place / 'steps')
    points = [(step, how) for how in ('exchange', 'two_renames') for step in range(1, 1 + _steps(case, how))]
    chosen = random.Random(seed).sample(points, min(len(points), count - at_random))
    yield from together(
        (_killed_at_step(case, step, how) for step, how in chosen),
        _killed_at_random(Case(place / 'random', 'BMP', 1200), seed, count - len(chosen)))


def _steps(case: Case, how: str) -> int:
    case.build(case.former)
    process = _start_doomed(case, 0, how)
    _, told = process.communicate(timeout=60)
    return int(told.rpartition('steps: ')[2])


def _start_doomed(case: Case, step: int, how: str) -> subprocess.Popen:
    module = 'tools.torture.doomed', step, how
    return toy_build.start(case.pictures, case.output, '--num_threads=1', module=module)


def _killed_at_step(case: Case, step: int, how: str) -> str:
    case.build(case.former)
    process = _start_doomed(case, step, how)
    _, told = process.communicate(timeout=60)
    if process.returncode != -9:
        return f'step {step} of {how}: ended with {process.returncode}: {told}'
    return _nothing_lost(case, f'killed before step {step}, {how}')


def _killed_at_random(case: Case, seed: int, count: int) -> Iterator[str]:
    rng, longest = random.Random(seed), 0.6
    done = 0
    while done < count:
        case.build(case.former)
        process = toy_build.start(case.pictures, case.output, '--num_threads=2', start_new_session=True)
        time.sleep(0.15 + rng.uniform(0, longest))
        ended = process.poll()
        process.kill()
        process.communicate(timeout=60)
        if ended is not None:
            longest *= 0.8  # It was done before.
            continue
        done += 1
        yield _nothing_lost(case, f'killed at random, {done}') or unless(
            _group_is_gone(process.pid), 'worker processes outlive the one that was killed')


def _nothing_lost(case: Case, when: str) -> str:
    whole = case.stands()
    if whole not in (case.old, case.new) and not (not whole and case.kept_aside() == case.old):
        return f'{when}: a mix, or nothing: {sorted(whole)}'
    if case.build(case.pictures) != case.new or toy_build.beside(case.output):
        return f'{when}: the next build leaves {toy_build.beside(case.output)}'
    return ''


def _group_is_gone(group: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# ---- R7: the same bytes ----


def same_bytes(place: Path, seed: int, count: int) -> Iterator[str]:
    """Sets of random sizes, some of whose files are broken, with 1, 3 and 8 processes."""
    for number in range(count):
        rng = random.Random(f'{seed} {number}')
        pictures = toy.class_folders(place / f'pictures{number}', {name: rng.randrange(1, 90) for name in 'abc'})
        for path in rng.sample(sorted(pictures.glob('*/*.jpg')), 3):
            path.write_bytes(path.read_bytes()[:rng.randrange(200)])
        shards = f'--train_shards={rng.randrange(1, 9)}'
        sets = []
        for processes in (1, 3, 8):
            output = place / f'records{number}' / str(processes)
            process = toy_build.start(pictures, output, f'--num_threads={processes}', shards)
            _, told = process.communicate(timeout=120)
            sets.append(toy_build.digests(output) if process.returncode == 0 else told)
        yield unless(sets[0] == sets[1] == sets[2], f'set {number} of seed {seed} depends on the number of processes')


# ---- R9: no room ----


def disk_full(place: Path, seed: int, count: int) -> Iterator[str]:
    """Files that may not grow beyond a limit, for about `count` limits."""
    case = Case(place, 'BMP', 60)
    largest = max((case.place / 'known' / 'new' / name).stat().st_size for name in case.new)
    limits = sorted({0, 1, *(largest * step // count for step in range(1, count))})
    yield from (_limited(case, limit) for limit in limits)


def _limited(case: Case, limit: int) -> str:
    case.build(case.former)

    def full_after():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return _refused(case, f'files of {limit} bytes', preexec_fn=full_after)


def _refused(case: Case, when: str, **options) -> str:
    process = toy_build.start(case.pictures, case.output, '--num_threads=1', **options)
    _, told = process.communicate(timeout=60)
    last = told.splitlines()[-1]
    if process.returncode != 1 or not last.startswith('error: ') or 'Traceback' in told or 'Exception ign' in told:
        return f'{when}: exit code {process.returncode}: {told}'
    return unless(case.stands() == case.old and not toy_build.beside(case.output), f'{when}: something was changed')


def small_disks(place: Path, seed: int, count: int) -> Iterator[str]:
    """Disks of every size that holds the old set and not the new one; only root can mount them."""
    disk = place / 'disk'
    disk.mkdir()
    size, done = 96 << 10, False
    while not done:
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'none', disk], check=True)
        try:
            case = Case(place, 'BMP', 60, output=disk / 'records' / 'toy')
            case.build(case.former)
            process = toy_build.start(case.pictures, case.output, '--num_threads=1')
            process.communicate(timeout=60)
            done = process.returncode == 0
            if not done:
                yield _refused(case, f'a disk of {size} bytes')
        finally:
            subprocess.run(['umount', disk], check=True)
        size += TMPFS_STEP


# ---- R10: two at once ----


def two_at_once(place: Path, seed: int, count: int) -> Iterator[str]:
    """Only tries in which the two met are counted."""
    case = Case(place, 'BMP', 400)
    met = 0
    for _ in range(3 * count):
        both = [toy_build.start(case.pictures, case.output, '--num_threads=1') for _ in range(2)]
        told = {process.returncode: said for process, (_, said) in
                [(process, process.communicate(timeout=120)) for process in both]}
        if set(told) == {0}:
            continue
        met += 1
        one_refused = set(told) == {0, 1} and 'is writing here' in told[1]
        yield unless(one_refused, f'exit codes and words: {told}') or _whole(case)
        if met == count:
            return


def _whole(case: Case) -> str:
    try:
        dataset.verify(dataset.open_records(case.output))
    except Error as error:
        return str(error)
    return unless(case.stands() == case.new and not toy_build.beside(case.output), 'not what one build alone leaves')
