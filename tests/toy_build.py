"""A build of tiny pictures, here or in a process of its own, and what it leaves behind."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from finetune import build
from finetune.console.lazy import tf
from finetune.records import dataset

ROOT = Path(__file__).parents[1]


def start(directory: Path, output: Path, *more: str, module: tuple = ('tools.build_tfrecords',), **options):
    """`module` may name another one to run it with, and that one's arguments."""
    command = [sys.executable, '-m', *map(str, module), f'--train_directory={directory}',
               f'--output_directory={output}', *more]
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True} | options
    return subprocess.Popen(command, cwd=ROOT, **options)


def read(output: Path, split: str = 'train') -> list[dict]:
    """Every record of a split, as TensorFlow reads it."""
    found = []
    for serialized in tf.data.TFRecordDataset(dataset.open_records(output).paths(split)).as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        found.append({
            'label': features['image/class/label'].int64_list.value[0],
            'text': features['image/class/text'].bytes_list.value[0].decode(),
            'filename': features['image/filename'].bytes_list.value[0],
            'encoded': features['image/encoded'].bytes_list.value[0],
            'size': (features['image/height'].int64_list.value[0], features['image/width'].int64_list.value[0]),
        })
    return found


def manifest(output: Path) -> dict:
    return json.loads((output / 'dataset.json').read_text())


def digests(output: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in output.iterdir()}


def beside(output: Path) -> list[str]:
    """What lies beside the records: nothing of a build may stay there."""
    return sorted(path.name for path in output.parent.iterdir() if path.name.startswith('.'))


def run(directory: Path, output: Path, *more: str, code: int = 0) -> None:
    """With one worker process."""
    flags = [f'--train_directory={directory}', f'--output_directory={output}', *more]
    if not any(flag.startswith('--num_threads') for flag in more):
        flags.append('--num_threads=1')
    assert build.main(flags) == code
