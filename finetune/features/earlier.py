"""What was computed for other records: rows that these can take over, for every picture that has the same bytes."""

import contextlib
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finetune.console.files import write_atomically
from finetune.records import stored

PICTURES = 'pictures.npy'
PICTURE = np.dtype([('digest', stored.DIGEST), ('check', '<u4')])  # Of a row: its picture; the CRC-32 of its features.


class Known(NamedTuple):
    """What one file of other records, or of another split, knows of the pictures of these."""

    places: np.ndarray  # int [m], rising: of the pictures in these records, and
    rows: np.ndarray  # int [m]: where they stand in
    features: np.ndarray  # [n, views, …], memory-mapped.


def find(facts: dict, row: np.dtype, directory: Path, digests: np.ndarray) -> list[Known]:
    """What is kept in the directory of these pictures, by other records than those that the facts name."""
    found, unknown = [], np.arange(len(digests))
    for place in _others(facts, directory):
        with contextlib.suppress(OSError, ValueError):  # It is not whole, or is being removed.
            pictures, rows = np.load(place / PICTURES), np.load(place / 'features.npy', mmap_mode='r')
            if (pictures.dtype, rows.dtype, rows.shape) == (PICTURE, row, pictures.shape):
                known = _found(digests[unknown], pictures, rows['features'])
                found.append(known._replace(places=unknown[known.places]))
                unknown = np.delete(unknown, known.places)  # No picture is taken from two files.
    return found


def _others(facts: dict, directory: Path) -> Iterator[Path]:
    """Where features are kept that depend on the same but for records and split."""
    here = {name: facts[name] for name in ('records', 'split')}
    for place in sorted(directory.iterdir()):
        theirs = facts_of(place)
        if theirs and place.name != key(facts) and key(theirs | here) == key(facts):
            yield place


def key(facts: dict) -> str:
    """The name of the directory where features are kept that depend on this."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(place: Path) -> dict | None:
    """What the features in a directory depend on; None where it is not such a directory."""
    try:
        facts = json.loads((place / 'features.json').read_bytes())
        return facts if place.name == key(facts) and {'records', 'split'} <= set(facts) else None
    except (OSError, ValueError, RecursionError, TypeError):
        return None


def _found(digests: np.ndarray, pictures: np.ndarray, features: np.ndarray) -> Known:
    """Where each picture stands there, if it does, with features that are as they were written."""
    rows = stored.find(digests, pictures['digest'])
    places = np.flatnonzero(rows >= 0)
    is_sound = [_check(features[row]) == pictures['check'][row] for row in rows[places]]
    places = places[np.array(is_sound, bool)]
    return Known(places, rows[places], features)


def write_pictures(place: Path, digests: np.ndarray, features: np.ndarray) -> None:
    """What other records will know these rows by."""
    pictures = np.empty(len(digests), PICTURE)
    pictures['digest'], pictures['check'] = digests, [_check(row) for row in features]
    content = io.BytesIO()
    np.save(content, pictures)
    write_atomically(place / PICTURES, content.getvalue())


def _check(row: np.ndarray) -> int:
    return zlib.crc32(row.tobytes())
