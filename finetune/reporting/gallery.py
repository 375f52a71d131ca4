"""Pictures of the records, beside what is said of them: which ones are shown, and how they come into a page."""

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from finetune.checking.album import Album
from finetune.checking.findings import PAIRS, Finding
from finetune.checking.judgement import Checked
from finetune.console.terminal import printable
from finetune.evaluation import drawings, unknown
from finetune.evaluation.metrics import Mistake
from finetune.records import examples
from finetune.records.dataset import Records
from finetune.reporting.contents import Contents

MOST_MISTAKES = 12
MOST_CONFUSIONS, MOST_OF_CONFUSION = 5, 4
MOST_OF_KIND = {'label_error': 18, 'leak': 8, 'contradiction': 8, 'duplicate': 8}  # Pictures or pairs.
MOST_OF_ODD = 4
MOST_BYTES = 10_000  # Of a thumbnail: all that may be shown, 160, are then 2.1 MB as text.
QUALITIES = 80, 65, 50, 35

Place = tuple[str, int]  # A split, and the place in it.


@dataclass(frozen=True)
class Tile:
    """A picture, or two of them, and the lines below."""

    places: tuple[Place, ...]
    names: tuple[str, ...]  # Printable, of each picture.
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Wall:
    """Tiles of one kind, and how many more there are."""

    tiles: tuple[Tile, ...]
    more: int


# Which ones -----------------------------------------------------------------------------------------------


def of_mistakes(contents: Contents, mistakes: Sequence[Mistake]) -> list[Tile]:
    return [_mistake(contents, mistake) for mistake in mistakes]


def of_confusion(contents: Contents, mistakes: Sequence[Mistake], true: int, answered: int) -> list[Tile]:
    """Of the mistakes the first with pictures of one class that were taken for another."""
    of_pair = [mistake for mistake in mistakes if (mistake.true, mistake.answered) == (true, answered)]
    return of_mistakes(contents, of_pair[:MOST_OF_CONFUSION])


def _mistake(contents: Contents, mistake: Mistake) -> Tile:
    true, answered = (printable(contents.data.labels[number]) for number in (mistake.true, mistake.answered))
    name, familiarity = printable(contents.outputs.filenames[mistake.index]), contents.outputs.extra
    lines = [f'Is {true}',
             f'Said {answered}, {mistake.probability:.1%} sure ({mistake.probability_of_true:.1%} for {true})', name]
    if familiarity is not None and familiarity[mistake.index] <= 1 - unknown.KEEP:
        lines.append('But predict would answer “unknown”')
    return Tile(((contents.subset, mistake.index),), (name,), tuple(lines))


def of_kind(checked: Checked, kind: str) -> Wall:
    """The surest findings of one kind."""
    found = [finding for finding in checked.found if finding.kind == kind and finding.places]
    tiles = [_finding(checked.album, finding) for finding in found[:MOST_OF_KIND.get(kind, MOST_OF_ODD)]]
    return Wall(tuple(tiles), len(found) - len(tiles))


def _finding(album: Album, finding: Finding) -> Tile:
    names = tuple(printable(album.name(place)) for place in finding.places)
    text = f'{finding.suggestion[0].upper()}{finding.suggestion[1:]} ({finding.score:.0%} sure)'
    return Tile(tuple(_place(album, place) for place in finding.places), names,
                (f'{finding.score:.0%} alike' if finding.kind in PAIRS else text, *names))


def _place(album: Album, place: int) -> Place:
    """Albums hold one split after the other, each in the order of its records."""
    split = album.split[place]
    return album.splits[split], place - int(np.searchsorted(album.split, split))


# Into the page --------------------------------------------------------------------------------------------


def stored(data: Records, places: Collection[Place]) -> dict[Place, bytes]:
    """The encoded pictures at these places; every split is read once."""
    return {(split, place): encoded for split in sorted({split for split, _ in places})
            for place, encoded in examples.encoded_at(
                data.paths(split), {at for name, at in places if name == split}).items()}


def thumbnail(encoded: bytes) -> str:
    return as_uri(drawings.thumbnail(encoded))


def as_uri(image: Image.Image) -> str:
    """A JPEG inside the page, as good as fits into its share of the bytes."""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, 'JPEG', quality=quality, optimize=True)
        if file.tell() <= MOST_BYTES:
            break
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'
