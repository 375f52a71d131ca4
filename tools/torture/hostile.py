"""What is given to --pretrained may mean harm: R14."""

import contextlib
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py

from finetune.console.errors import Error
from finetune.runs import recipe
from finetune.runs.state import build_model
from finetune.training import pretrained
from tests import toy_run
from tools.torture import children, unless, warm
from tools.torture.hostile_files import FILES, SAID, SECRET

MOST_SECONDS, MOST_BYTES = 2.0, 1 << 30


def refused(place: Path, seed: int, count: int, names: Sequence[str] = ()) -> Iterator[str]:
    """Each in a child; the canary is what the programs in these files would make.

    Of a file that leads elsewhere only its own refusal counts: what was read there would be refused too, but later.
    """
    assert warm, 'it adds the toy network'
    canary = place / 'canary'
    with h5py.File(place / 'secret.h5', 'w') as file:
        file['x'] = SECRET
    for name in names or FILES:
        path = place / name.replace(' ', '_') / 'weights.h5'
        path.parent.mkdir()
        FILES[name](path, canary)
        ended = children.run(try_to_start_from, str(path), seconds=30)
        said, seconds, size = ended.result or (ended.trouble, 0.0, 0)
        right = said.startswith('refused: ') and seconds < MOST_SECONDS and size < MOST_BYTES
        yield unless(right and not canary.exists() and SAID.get(name, '') in said,
                     f'{name}: {said[:300]} after {seconds:.1f} s and {size / 2**20:.0f} MiB, canary {canary.exists()}')
        canary.unlink(missing_ok=True)


def try_to_start_from(path: str) -> tuple[str, float, int]:
    """What was said, and how long it took and how much memory, once TensorFlow and the network are there."""
    model = build_model(recipe.plan({'model': 'toy'}, None, 10), len(toy_run.LABELS))
    before, started = children.peak(), time.monotonic()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            planned = recipe.plan({'pretrained': path, 'fine_tune': True}, pretrained.network(path), 10)
            pretrained.restore(model, pretrained.read(planned), toy_run.LABELS, True)
        said = 'taken'
    except Error as error:
        said = f'refused: {error}'
    return said, time.monotonic() - started, children.peak() - before
