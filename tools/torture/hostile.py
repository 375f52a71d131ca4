"""What is given to --pretrained may mean harm: R14."""

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py

from finetune.console.errors import Error
from finetune.models import torch_file
from finetune.runs import recipe
from finetune.runs.state import build_model
from finetune.training import pretrained
from tests import toy_run
from tools.torture import children, unless, warm
from tools.torture.hostile_files import FILES, SAID, SECRET, TORCH

MOST_SECONDS, MOST_BYTES = 2.0, 1 << 30


def refused(place: Path, seed: int, count: int, names: Sequence[str] = ()) -> Iterator[str]:
    """Each in a child; the canary is what the programs in these files would make.

    Of a file that leads elsewhere only its own refusal counts: what was read there would be refused too, but later.
    """
    assert warm, 'it adds the toy network'
    canary = place / 'canary'
    with h5py.File(place / 'secret.h5', 'w') as file:
        file['x'] = SECRET
    for name in names or FILES | TORCH:
        path = place / name.replace(' ', '_') / 'weights.h5'
        path.parent.mkdir()
        (FILES | TORCH)[name](path, canary)
        ended = children.run(try_to_read_tensors if name in TORCH else try_to_start_from, str(path), seconds=30)
        said, seconds, size = ended.result or (ended.trouble, 0.0, 0)
        right = said.startswith('refused: ') and seconds < MOST_SECONDS and size < MOST_BYTES
        yield unless(right and not canary.exists() and SAID.get(name, '') in said,
                     f'{name}: {said[:300]} after {seconds:.1f} s and {size / 2**20:.0f} MiB, canary {canary.exists()}')
        canary.unlink(missing_ok=True)


def try_to_start_from(path: str) -> tuple[str, float, int]:
    """What was said, and how long it took and how much memory, once TensorFlow and the network are there."""
    model = build_model(recipe.plan({'model': 'toy'}, None, 10), len(toy_run.LABELS))

    def start() -> None:
        typed = {'pretrained': path, 'fine_tune': True}
        planned = recipe.plan(typed, pretrained.network(typed), 10)
        pretrained.restore(model, pretrained.read(planned), toy_run.LABELS, True)

    return _tried(start)


def try_to_read_tensors(path: str) -> tuple[str, float, int]:
    """The same of the file of a package, as if its checksum were the one that is known: that alone refuses them all."""
    plain = Path(path).is_file() and Path(path).stat().st_size < torch_file.MOST_BYTES
    known = hashlib.sha256(Path(path).read_bytes()).hexdigest() if plain else ''
    return _tried(lambda: torch_file.read(Path(path), known))


def _tried(read: Callable[[], object]) -> tuple[str, float, int]:
    before, started = children.peak(), time.monotonic()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            read()
        said = 'taken'
    except Error as error:
        said = f'refused: {error}'
    return said, time.monotonic() - started, children.peak() - before
