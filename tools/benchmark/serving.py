"""`finetune serve` of an export, as programs ask it: over HTTP, from clients on the same cores."""

import http.client
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.serving import started
from tools.benchmark.place import Place, printed_by
from tools.benchmark.turns import spread

STARTS, TURNS, ANSWERS, CLIENTS = 5, 5, 250, 8


def serving(place: Place) -> Iterator[dict]:
    """MobileNetV2 with a head on it, as OpenVINO: how soon it is there, in what memory, and how fast it answers."""
    export, photos = _exported(place), _photos(place)
    yield _found('from the command to the first answer, of an export with openvino', 'seconds', 1.0,
                 [_seconds_to_an_answer(export, photos[0]) for _ in range(STARTS)])
    with started.server(export, told=subprocess.DEVNULL) as (port, process):
        _milliseconds(port, photos)
        yield _found('a flower photo, asked by one client: the median', 'ms', 15.0,
                     [statistics.median(_milliseconds(port, photos)) for _ in range(TURNS)])
        yield _found(f'flower photos, asked by {CLIENTS} clients', 'answers/s', 75.0,
                     [_answers_in_a_second(port, photos) for _ in range(TURNS)])
        yield _found('memory at most, after all of these', 'MB', 200.0, [started.memory(process, 'VmHWM') / 2**20],
                     loaded_tensorflow=_has_loaded(process, 'libtensorflow'))


def _exported(place: Place) -> Path:
    run, export = place.scratch / 'served_run', place.scratch / 'served_export'
    if not run.exists():
        printed_by('finetune', 'train', f'--data_dir={place.records}', f'--train_dir={run}',
                   f'--pretrained={place.mobilenet}', '--fine_tune', '--freeze_backbone',
                   f'--feature_dir={place.scratch / "served_features"}')
    if not export.exists():
        printed_by('finetune', 'export', run, f'--output={export}', '--format=openvino',
                   f'--data_dir={place.records}', '--num_examples=100')
    return export


def _photos(place: Place) -> list[bytes]:
    """Of every class."""
    paths = sorted((place.photos / 'validation').glob('*/*'), key=lambda path: (path.name, path.parent.name))
    return [path.read_bytes() for path in paths[:ANSWERS]]


def _seconds_to_an_answer(export: Path, photo: bytes) -> float:
    began = time.monotonic()
    with started.server(export, told=subprocess.DEVNULL) as (port, _):
        status, _ = started.asked(port, '/predict', photo)
        assert status == 200
        return time.monotonic() - began


def _milliseconds(port: int, photos: Sequence[bytes]) -> list[float]:
    """Of each answer, over one connection."""
    connection, found = http.client.HTTPConnection('127.0.0.1', port), []
    for photo in photos:
        began = time.monotonic()
        status, _ = started.asked_on(connection, '/predict', photo)
        found.append(1000 * (time.monotonic() - began))
        assert status == 200
    connection.close()
    return found


def _answers_in_a_second(port: int, photos: Sequence[bytes]) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda first: _milliseconds(port, photos[first::CLIENTS]), range(CLIENTS)))
    return len(photos) / (time.monotonic() - began)


def _has_loaded(process: subprocess.Popen, library: str) -> bool:
    return library in Path(f'/proc/{process.pid}/maps').read_text()


def _found(what: str, unit: str, goal: float, values: Sequence[float], **more) -> dict:
    return {'what': what, 'unit': unit, 'goal': goal, 'n': len(values), 'ours': spread(np.array(values)), **more}
