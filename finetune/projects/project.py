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
from finetune.records import dataset
from finetune.runs import winner
from finetune.runs.run import Run

FILE = 'project.json'
RUNS = ('head', 'last_blocks', 'larger_pictures')  # Their directories: no other is ever moved or deleted.


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

    def is_finished(self) -> bool:
        """Whether everything that was made at last is still there: the report, the run, its records."""
        with contextlib.suppress(Error):
            data = dataset.open_records(self.records)
            return (self.report.exists() and Run.exists(self.directory)
                    and data.fingerprint == self.memory.get('records') == Run(self.directory).records['fingerprint'])
        return False

    @contextlib.contextmanager
    def locked(self, photos: str) -> Iterator[None]:
        """Keeps a second command out of the project. Raises Error where it is that of other pictures, or none."""
        is_new = files.prepare(self.directory, 'the project is written there', '--output')
        try:
            with locks.held(self.directory / '.lock', lambda pid: self._refuse(pid)), files.naming(self.directory):
                self._claim(str(Path(photos).resolve()))
                yield
        finally:
            if is_new and not self.memory.get('records'):  # Where a path was wrong, nothing is left.
                (self.directory / FILE).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.directory.rmdir()

    def _claim(self, photos: str) -> None:
        self.memory = self._read()  # Now that nobody else writes it.
        foreign = sorted(path.name for path in self.directory.iterdir() if not path.name.startswith('.'))
        if foreign and not self.memory:
            raise Error(f'{printable(self.directory)} holds {printable(foreign[0])}, and is no project: choose another '
                        '--output.')
        if photos != self.memory.setdefault('of', photos):
            raise Error(f'{printable(self.directory)} is the project of {printable(self.memory["of"])}: choose another '
                        '--output, or delete it first.')
        self.remember()
        chosen, previous = self._chosen(), self.directory / winner.PREVIOUS
        if (previous / chosen).is_dir() and chosen in RUNS and not (self.directory / chosen).exists():
            winner.choose(self.directory, f'{winner.PREVIOUS}/{chosen}')  # A kill came between these two.

    def _refuse(self, pid: str) -> NoReturn:
        raise Error(f'another command (pid {pid}) is working on {printable(self.directory)}. Wait for it, or choose '
                    'another --output.')

    def set_aside_runs_on_other(self, fingerprint: str) -> None:
        for name in RUNS:
            if Run.exists(self.directory / name) and Run(self.directory / name).records['fingerprint'] != fingerprint:
                self.set_aside(name)

    def set_aside(self, name: str) -> None:
        """Makes room for another run of this name; the one that won answers on until there is a new winner."""
        path, previous = self.directory / name, self.directory / winner.PREVIOUS
        self.remember(runs={other: told for other, told in self.memory.get('runs', {}).items() if other != name})
        if not path.exists():
            return
        if self._chosen() == name:
            _delete(previous)
            previous.mkdir()
            path.rename(previous / name)
            winner.choose(self.directory, f'{winner.PREVIOUS}/{name}')
        else:
            _delete(path)

    def choose(self, name: str) -> None:
        """Has this run stand for the project; what stood for it before goes."""
        winner.choose(self.directory, name)
        _delete(self.directory / winner.PREVIOUS)

    def _chosen(self) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / winner.MODEL).read_text(errors='replace').strip()
        return ''


def _delete(directory: Path) -> None:
    """As a whole: what a kill leaves of it has another name."""
    doomed = directory.with_name(f'.{directory.name}.deleted')
    shutil.rmtree(doomed, ignore_errors=True)
    if directory.exists():
        directory.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
