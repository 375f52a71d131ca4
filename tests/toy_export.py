"""Exports of the toy run, and what others read in them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from finetune import export, predict
from finetune.runs import trust
from finetune.runs.run import Run
from tests import toy_run

SCORES = np.linspace(0, 0.34, 99, dtype=np.float32)  # Those of the pictures here lie on both sides of the middle.
WITHOUT_THIS_PROJECT = "import sys; sys.modules['finetune'] = None\n"


def made(directory: Path, scores=SCORES, **start) -> Run:
    """A run that knows nothing, but how far to trust it."""
    run = toy_run.start_run(directory, crop_fraction=0.875, treatment={'max_side': 299}, **start)
    toy_run.save_checkpoint(run, step=3)
    means = np.eye(3, Run(directory).load().model.get_layer('head').input_shape[-1], dtype=np.float32)
    trust.write(directory, trust.Trust(3, trust.OUT_OF_FOLD, 99, 88, 2.0, means, 0.05, scores))
    return run


def exported(run: Run, tmp_path: Path, *flags: str) -> Path:
    assert export.main([str(run.directory), f'--output={tmp_path}/export', '--num_examples=9', *flags]) == 0
    return tmp_path / 'export'


def read_by_others(directory: Path, format: str, *paths: Path) -> list[list[str]]:
    """What the code of the README prints of pictures, in a process that cannot import this project."""
    readme = (directory / 'README.md').read_text()
    code, = re.findall(rf'## {format}\n.*?```python\n(.*?)```', readme, re.DOTALL)
    done = subprocess.run([sys.executable, '-P', '-c', WITHOUT_THIS_PROJECT + code, *map(str, paths)], cwd=directory,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split('\t') for line in done.stdout.splitlines()]


def predicted(run: Run, capsys, *arguments: str | Path) -> list[dict]:
    capsys.readouterr()
    assert predict.main([f'--checkpoint_dir={run.directory}', '--jsonl', *map(str, arguments)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
