"""The directory of a project, and what is remembered there from one call to the next."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from finetune.console import files, locks
from finetune.console.errors import Error, UsageError
from finetune.console.files import write_atomically
from finetune.console.terminal import printable
from finetune.runs import winner
from finetune.runs.run import Run

FILE = 'project.json'
OURS = {FILE, winner.MODEL, winner.RECORDS, winner.PREVIOUS, 'features', 'check', 'unpacked', 'report.html',
        'near_duplicates.csv'}


class Project:
    """`memory` holds plain values by name; see `remember`."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.records, self.features, self.check, self.unpacked = (
            directory / name for name in (winner.RECORDS, 'features', 'check', 'unpacked'))
        self.report, self.near_duplicates = directory / 'report.html', directory / 'near_duplicates.csv'
        self.memory = self._read()

    @classmethod
    def of(cls, photos: str, output: str | None = None) -> 'Project':
        """In `output`, or in checkpoints/NAME: flowers, of flowers/, flowers.zip and flowers.tar.gz."""
        name = Path(photos).resolve().name
        stem = name.partition('.')[0] if Path(photos).is_file() else name
        directory = Path(output or Path('checkpoints', stem or 'photos'))
        if Path(photos).resolve() in (directory.resolve(), *directory.resolve().parents):
            raise UsageError(f'the project {printable(directory)} would lie in {printable(photos)}, among the '
                             'pictures: choose another --output')
        return cls(directory)

    def _read(self) -> dict:
        with contextlib.suppress(OSError, ValueError, RecursionError):  # Then everything is found out again.
            memory = json.loads((self.directory / FILE).read_text())
            if isinstance(memory, dict):
                return memory
        return {}

    def remember(self, **facts) -> None:
        self.memory |= facts
        write_atomically(self.directory / FILE, (json.dumps(self.memory, indent=1) + '\n').encode())

    def remember_run(self, name: str, recipe: dict, seconds: float) -> None:
        """What it was told to be, and how long it has trained."""
        self.remember(runs=self.memory.get('runs', {}) | {name: (recipe, seconds)})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second command out of the project. Raises Error where the directory is something else."""
        is_new = files.prepare(self.directory, 'the project is written there', '--output')
        foreign = sorted(path.name for path in self.directory.iterdir()
                         if path.name not in OURS and not path.name.startswith('.') and not Run.exists(path))
        if foreign and not self.memory:
            raise Error(f'{printable(self.directory)} holds {printable(foreign[0])}, and is no project: choose another '
                        '--output.')
        try:
            with locks.held(self.directory / '.lock', lambda pid: self._refuse(pid)), files.naming(self.directory):
                yield
        finally:
            if is_new:
                with contextlib.suppress(OSError):  # Not empty, as it should be; it is where a path was wrong.
                    self.directory.rmdir()

    def _refuse(self, pid: str) -> NoReturn:
        raise Error(f'another command (pid {pid}) is working on {printable(self.directory)}. Wait for it, or choose '
                    'another --output.')

    def set_aside(self, fingerprint: str) -> None:
        """Moves runs on other records out of the way; the one that won answers on until there is a new one."""
        stale = [path for path in sorted(self.directory.iterdir())
                 if (path / 'recipe.json').is_file() and Run(path).records['fingerprint'] != fingerprint]
        chosen = self._chosen()
        for path in stale:
            if path.name == chosen:
                shutil.rmtree(self.directory / winner.PREVIOUS, ignore_errors=True)
                (self.directory / winner.PREVIOUS).mkdir()
                path.rename(self.directory / winner.PREVIOUS / path.name)
                winner.choose(self.directory, f'{winner.PREVIOUS}/{path.name}')
            else:
                shutil.rmtree(path)

    def choose(self, name: str) -> None:
        """Has this run stand for the project; what stood for it before goes."""
        winner.choose(self.directory, name)
        shutil.rmtree(self.directory / winner.PREVIOUS, ignore_errors=True)

    def _chosen(self) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / winner.MODEL).read_text(errors='replace').strip()
        return ''
