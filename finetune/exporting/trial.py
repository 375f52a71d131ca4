"""A program by itself, which cannot import this project: pictures answered by the code that an export's README gives.

    python -P trial.py CODE PICTURES RESULTS MODULE…   (CODE is a folder with client.py, which imports these modules)

It imports them, reads a line with the directory of the export, answers the pictures, prints a line, and waits for
another one before it measures how long an answer takes: others may compute until then.
"""

import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np

KEPT = {'logits': None, 'familiarity': None, 'evidence': 8}  # Of the first so many pictures.
TIMED = 30  # Pictures.


def main(code: Path, pictures: Path, results: Path, *modules: str) -> None:
    sys.modules['finetune'] = None  # An import of it fails.
    sys.argv = ['client.py']  # No pictures, which it would print answers to.
    sys.path.insert(0, str(code))
    told, sys.stdout = sys.stdout, sys.stderr
    for module in modules:
        importlib.import_module(module)
    directory = sys.stdin.readline().rstrip('\n')
    if not directory:
        return  # Nothing is to be tried.
    os.chdir(directory)
    answer = importlib.import_module('client').answer
    files = [path.read_bytes() for path in sorted(pictures.iterdir())]
    found = [answer(file) for file in files]
    print('answered', file=told, flush=True)
    sys.stdin.readline()
    milliseconds = []
    for file in files[:TIMED]:
        started = time.perf_counter()
        answer(file)
        milliseconds.append(1000 * (time.perf_counter() - started))
    columns = {name: np.stack([each[name] for each in found[:most]]) for name, most in KEPT.items() if name in found[0]}
    ranked_by = 'logits' if 'logits' in columns else 'probabilities'
    best = [each[ranked_by].argmax() for each in found]
    np.savez(results, milliseconds=milliseconds, best=best, **columns)


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
