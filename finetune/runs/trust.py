"""What makes a run's answers trustworthy: `trust.npz`, beside the checkpoint that it was fitted to."""

import dataclasses
import io
from pathlib import Path

import numpy as np

from finetune.console.files import write_atomically
from finetune.console.terminal import printable, warn

FILE = 'trust.npz'
OUT_OF_FOLD, VALIDATION = 'training pictures, out of fold', 'validation pictures'  # What it may be fitted on.


@dataclasses.dataclass(frozen=True)
class Trust:
    """Fitted to pictures that did not train what it judges; `evaluation` has the functions that take these values."""

    step: int  # Of the checkpoint: another one has other features.
    fitted_on: str  # One of those above.
    pictures: int  # How many.
    right: int  # Of these, how many are answered rightly.
    temperature: float  # That logits are divided by.
    class_means: np.ndarray  # float32 [classes with pictures, c], of length 1; [0, c] where `unknown` is never said.
    energy_weight: float
    scores: np.ndarray  # float32, sorted: those of real pictures.

    @property
    def can_abstain(self) -> bool:
        return len(self.class_means) > 0


def write(directory: Path, trust: Trust) -> None:
    data = io.BytesIO()
    np.savez(data, **dataclasses.asdict(trust))
    write_atomically(directory / FILE, data.getvalue())


def read(directory: Path, step: int) -> Trust | None:
    """What was fitted to the checkpoint of this step, if anything was: runs of old have nothing."""
    path = directory / FILE
    if not path.is_file():  # No FIFO, which would be waited for.
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {field.name: file[field.name] for field in dataclasses.fields(Trust)}
        trust = Trust(**{name: value if value.ndim else value.item() for name, value in found.items()})
        _check(trust)
    except Exception as error:  # Of many kinds, on damaged bytes.
        warn(f'{printable(path)} cannot be read ({printable(str(error))}): answers come without temperature and '
             'without `unknown`. Restore it, or delete it to be spared this line')
        return None
    return trust if trust.step == step else None


def _check(trust: Trust) -> None:
    """Raises ValueError where this program cannot have written it."""
    if not (isinstance(trust.step, int) and 0 <= trust.right <= trust.pictures
            and 0 < trust.temperature < np.inf and trust.class_means.ndim == 2
            and trust.scores.ndim == 1 and np.isfinite(trust.energy_weight)
            and np.isfinite(trust.class_means).all() and np.isfinite(trust.scores).all()):
        raise ValueError('its values make no sense')
