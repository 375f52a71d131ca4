"""A project stands for its run that won: commands take the one where they take the other."""

from pathlib import Path

from finetune.console.errors import Error
from finetune.console.files import write_atomically
from finetune.console.terminal import printable

MODEL = 'model'  # The file of a project that names the run.
RECORDS = 'records'  # The directory of its records,
PREVIOUS = 'previous'  # and that of runs on records of before, until those on the new ones are there.


def directory_of_run(directory: Path) -> Path:
    """The directory itself; of a project that of the run that won."""
    model = directory / MODEL
    if not model.is_file():  # No FIFO, which would be waited for.
        return directory
    name = model.read_text(errors='replace').strip()
    run = directory / name
    if not name or run.resolve().parent not in (directory.resolve(), directory.resolve() / PREVIOUS):
        raise Error(f'{printable(model)} names no run of this project: {printable(name)!r}. Restore it, or type the '
                    '`finetune PHOTOS` command that made the project again.')
    return run


def choose(project: Path, name: str) -> None:
    """Has the run of this name stand for the project from now on."""
    write_atomically(project / MODEL, f'{name}\n'.encode())


def data_directory(given: str | None, run_or_project: str | None) -> str | None:
    """The records that were named, else those of the project that was, or that has the run that was."""
    if given or not run_or_project:
        return given
    asked = Path(run_or_project)
    projects = (each for each in (asked, asked.parent) if (each / MODEL).is_file())
    return next((str(each / RECORDS) for each in projects), given)
