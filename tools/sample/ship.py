"""Makes the backbone of a run what `--pretrained=sample` loads: `python -m tools.sample.ship RUN`.

Kernels are kept in half precision, which costs no accuracy that can be measured and halves the file; biases and the
statistics of batch normalisation stay as they are.
"""

import json
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from finetune.console import files
from finetune.console.errors import Error
from finetune.models import weights
from finetune.runs.run import Run
from finetune.training import pretrained

FILE = 'backbone.weights.h5'


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit('usage: python -m tools.sample.ship RUN')
    try:
        run = Run(arguments[0])
        backbone = run.load().model.get_layer('backbone')
    except Error as error:
        sys.exit(f'error: {error}')
    pretrained.SAMPLE.mkdir(exist_ok=True)
    files.write_atomically(pretrained.SAMPLE / FILE, halved(backbone))
    weights.write_checksum(pretrained.SAMPLE / FILE)
    facts = json.loads((run.directory / 'recipe.json').read_text())
    text = json.dumps({'labels': [], 'records': facts['records'] | {'per_class': []}, 'versions': facts['versions'],
                       'recipe': facts['recipe'] | {'pretrained': ''}}, indent=2)
    files.write_atomically(pretrained.SAMPLE / 'recipe.json', f'{text}\n'.encode())
    for file in sorted(pretrained.SAMPLE.iterdir()):
        print(f'{file.stat().st_size:>9,} bytes  {file}')


def halved(backbone) -> bytes:
    """A `.weights.h5` of the backbone with its kernels in float16."""
    with tempfile.TemporaryDirectory() as directory:
        full, half = Path(directory, 'full.weights.h5'), Path(directory, 'half.weights.h5')
        backbone.save_weights(full)
        with h5py.File(full) as source, h5py.File(half, 'w') as target:
            def copy(name, item):
                if isinstance(item, h5py.Dataset):
                    target[name] = item[()].astype(np.float16) if item.ndim > 1 else item[()]

            source.visititems(copy)
        return half.read_bytes()


if __name__ == '__main__':
    main(sys.argv[1:])
