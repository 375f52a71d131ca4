"""`finetune serve` in a process of its own, what it is asked, and a toy run that knows what is unknown to it."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.runs import trust
from finetune.runs.run import Run
from tests import toy, toy_run

PROGRAM = 'import sys; from finetune.__main__ import main; sys.exit(main(sys.argv[1:]))'
SCORES = np.linspace(0, 0.34, 99, dtype=np.float32)  # Those of the toy pictures lie on both sides of the middle.


def run(directory: Path) -> Run:
    """Of the toy network, which must be in the zoo."""
    started = toy_run.start_run(directory, crop_fraction=0.875, treatment={'short_side': 48})
    toy_run.save_checkpoint(started, step=3)
    means = np.eye(3, started.load().model.get_layer('head').input_shape[-1], dtype=np.float32)
    trust.write(directory, trust.Trust(3, trust.OUT_OF_FOLD, 99, 88, 2.0, means, 0.05, SCORES))
    return started


def pictures() -> dict[str, bytes]:
    """Of every kind, the last two of them no good."""
    turned = toy.picture(3, (90, 60)).getexif()
    turned[0x0112] = 6
    clear = toy.picture(5, (60, 90)).convert('RGBA')
    clear.putalpha(Image.linear_gradient('L').resize(clear.size))
    return {
        'noise.jpg': toy_run.picture(1), 'plain.jpg': toy.encoded(toy.picture(2, (90, 60))),
        'turned.jpg': toy.encoded(toy.picture(3, (90, 60)), exif=turned.tobytes()),
        'grey.jpg': toy.encoded(toy.picture(4, (70, 70)).convert('L')), 'clear.png': toy.encoded(clear, 'PNG'),
        'one.gif': toy.encoded(toy.picture(6, (64, 48)), 'GIF'), 'one.webp': toy.encoded(toy.picture(7), 'WEBP'),
        'one.bmp': toy.encoded(toy.picture(8, (31, 45)), 'BMP'), 'one.tif': toy.encoded(toy.picture(9), 'TIFF'),
        'cmyk.jpg': toy.encoded(toy.picture(10, (50, 50)).convert('CMYK')), 'cut.jpg': toy_run.picture(11)[:-300],
        'no.jpg': b'no picture',
    }


@contextlib.contextmanager
def server(*arguments, program: str = PROGRAM, told=subprocess.PIPE) -> Iterator[tuple[int, subprocess.Popen]]:
    """Its port, and the process, which writes its remarks to `told`."""
    command = [sys.executable, '-c', program, 'serve', *map(str, arguments), '--port=0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True) as process:
        try:
            address = process.stdout.readline()
            assert address.startswith('http://'), process.stderr and process.stderr.read()
            yield int(re.search(r':(\d+)/', address)[1]), process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            process.kill()


def asked(port: int, path: str, body: bytes | None = None, kind: str = 'image/jpeg') -> tuple[int, dict]:
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=60)) as connection:
        return asked_on(connection, path, body, kind)


def asked_on(
    connection: http.client.HTTPConnection, path: str, body: bytes | None = None, kind: str = 'image/jpeg'
) -> tuple[int, dict]:
    """Over a connection that is kept for the next question."""
    connection.request('GET' if body is None else 'POST', path, body, {} if body is None else {'Content-Type': kind})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def memory(process: subprocess.Popen, name: str = 'VmRSS') -> int:
    """Bytes, as Linux counts them; VmHWM: the most that there were."""
    status = Path(f'/proc/{process.pid}/status').read_text()
    return int(re.search(rf'{name}:\s+(\d+)', status)[1]) * 1024
