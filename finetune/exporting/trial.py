"""A program by itself, which cannot import this project: pictures answered by the code that an export's README gives.

    python -P trial.py CODE PICTURES RESULTS   (in the directory of the export; CODE is a folder with client.py)
"""

import importlib
import sys
import time
from pathlib import Path

import numpy as np

KEPT = {'logits': None, 'familiarity': None, 'evidence': 8}  # Of the first so many pictures.


def main(code: Path, pictures: Path, results: Path) -> None:
    sys.modules['finetune'] = None  # An import of it fails.
    sys.argv = ['client.py']  # No pictures, which it would print answers to.
    sys.path.insert(0, str(code))
    client = importlib.import_module('client')
    found, milliseconds = [], []
    for path in sorted(pictures.iterdir()):
        file, started = path.read_bytes(), time.perf_counter()
        found.append(client.answer(file))
        milliseconds.append(1000 * (time.perf_counter() - started))
    columns = {name: np.stack([each[name] for each in found[:most]]) for name, most in KEPT.items() if name in found[0]}
    ranked_by = 'logits' if 'logits' in columns else 'probabilities'
    best = [each[ranked_by].argmax() for each in found]
    np.savez(results, milliseconds=milliseconds, best=best, **columns)


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
