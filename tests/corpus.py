"""The corpus of odd and broken files that stands beside the project on some machines."""

import base64
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from finetune.console.terminal import printable

MAKER = Path(__file__).parents[1].parent / 'shared' / 'tools' / 'make_bad_images.py'

_if_there = pytest.mark.skipif(not MAKER.exists(), reason='the corpus of bad files is not on this machine')


def needs_corpus(test):
    return pytest.mark.slow(_if_there(test))  # To write the corpus takes half a minute.


@functools.cache
def root() -> Path:
    """Writes the corpus once a test run."""
    folder = tempfile.TemporaryDirectory(prefix='corpus-')
    root.keep = folder  # Removed when the interpreter ends.
    subprocess.run([sys.executable, MAKER, folder.name, '--hazards', '--force'], check=True, capture_output=True)
    return Path(folder.name)


READ_SINCE = {  # What has become of files since the manifest was written, by name: expectation, reason.
    'mpo.jpg': ('accept', 'extra_picture'),
    'page.tif': ('accept', ''), 'pages.tiff': ('accept', 'first_frame'), 'picture.avif': ('accept', ''),
    'picture.jp2': ('accept', ''),
    'tiff_named.jpg': ('accept', 'suffix_mismatch'), 'avif_named.jpg': ('accept', 'suffix_mismatch'),
    'float.tif': ('reject', 'unsupported_coding'),
    'iphone.heic': ('reject', 'corrupt'), 'heic_named.jpg': ('reject', 'corrupt'),  # Zeros behind their first box.
}
PICTURE_SIZE = [96, 64]


@functools.cache
def manifest() -> dict:
    told = json.loads((root() / 'manifest.json').read_text())
    for entry in told['files']:
        if found := READ_SINCE.get(entry['id'].rpartition('/')[2]):
            entry['expect'], entry['reason'] = found
            entry['size'] = PICTURE_SIZE if entry['expect'] == 'accept' else None
    return told


def path(entry: dict) -> bytes:
    return os.path.join(os.fsencode(root()), base64.b64decode(entry['path_b64']))  # noqa: PTH118 - bytes.


def stands_for(listed: str, entry: dict) -> bool:
    """Whether a line of skipped.csv is about this file, or about the folder that it is in."""
    file = printable(path(entry))
    return listed == file or file.startswith(f'{listed}/')
