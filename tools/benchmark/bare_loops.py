"""The peers of `benchmark build`: loops that do to every picture only what must be done, on all cores.

    python -m tools.benchmark.bare_loops hash FOLDER      read, decode, hash
    python -m tools.benchmark.bare_loops shrink FOLDER    read, decode, shrink to a short side of 299, encode
"""

import hashlib
import io
import multiprocessing
import sys
from pathlib import Path

from PIL import Image


def decode_and_hash(path: Path) -> str:
    data = path.read_bytes()
    Image.open(io.BytesIO(data)).convert('RGB').load()
    return hashlib.sha256(data).hexdigest()


def decode_and_shrink(path: Path) -> int:
    image = Image.open(path).convert('RGB')
    factor = 299 / min(image.size)
    shrunk = io.BytesIO()
    image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS).save(shrunk, 'JPEG')
    return len(shrunk.getvalue())


LOOPS = {'hash': decode_and_hash, 'shrink': decode_and_shrink}

if __name__ == '__main__':
    with multiprocessing.Pool() as pool:
        pool.map(LOOPS[sys.argv[1]], sorted(Path(sys.argv[2]).glob('*/*')), chunksize=4)
