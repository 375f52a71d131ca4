"""Pictures that `finetune check` found to be nearly the same become groups, each of which stays in one split."""

import collections
import csv
import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finetune.building.sources import Source
from finetune.console.errors import Error
from finetune.console.terminal import count, printable, shown_by

COLUMNS = ('kind', 'file', 'other_file')  # Those that are read, of a findings.csv.
KINDS = ('leak', 'contradiction', 'duplicate')  # Of findings, those about two pictures.
NAMED_BY = 'it names the findings.csv that `finetune check` writes, in RECORDS/check unless told otherwise'


class Name(NamedTuple):
    """How a finding calls a picture: in the split that it was in then."""

    split: str
    filename: bytes  # As 'image/filename' says it.


@dataclass(frozen=True)
class Near:
    """Pairs of nearly the same pictures, of which the content is to decide the split."""

    findings: str | Path
    pairs: tuple[tuple[int, ...], ...]  # Places in the list of the source; a name may stand there more than once.
    unknown: tuple[bytes, ...]  # Names that no picture has.
    apart: int  # Pairs with a picture whose split is fixed, as it has a directory of its own.

    def remarks(self) -> Iterator[str]:
        """What a person should know before any picture is read."""
        where = printable(self.findings)
        if self.unknown:
            yield (f'{where} also names {count(len(self.unknown), "picture")} not among these, for example '
                   f'{printable(self.unknown[0])}; `finetune check` compares those that are here.')
        if self.apart:
            yield (f'{where}: {count(self.apart, "pair")} cannot be brought to one side, as a directory decides the '
                   'split of one picture or of both.')


def find(findings: str | Path, sources: Mapping[str, Source], seed: int) -> Near:
    """The pairs of the findings, in the list that the training source gives for this seed.

    A split that has a source of its own is where a name of that split is looked for; all other names are those of
    training pictures, whatever split they were in: so the split of before does not decide the next one. Raises Error.
    """
    pairs = [tuple((name.split if name.split in sources else 'train', name.filename) for name in pair)
             for pair in read(findings)]
    places: dict[tuple[str, bytes], list[int]] = {name: [] for pair in pairs for name in pair}
    for split, source in sources.items() if places else ():
        for place, image in enumerate(source.images(seed)):
            if (split, image.filename) in places:
                places[split, image.filename].append(place)
    unknown = sorted(filename for (_, filename), found in places.items() if not found)
    if places and len(unknown) == len(places):
        raise Error(f'{printable(findings)} is of other pictures: none of those that it names is here, for example '
                    f'{printable(unknown[0])}. Build without --group_near_duplicates, run `finetune check`, and name '
                    'what that finds.')
    known = [pair for pair in pairs if all(map(places.get, pair))]
    movable = [pair for pair in known if all(split == 'train' for split, _ in pair)]
    joined = tuple(tuple(itertools.chain(*map(places.get, pair))) for pair in movable)
    return Near(findings, joined, tuple(unknown), len(known) - len(movable))


def read(findings: str | Path) -> list[tuple[Name, Name]]:
    """The pairs that a findings.csv names. Raises Error where the file is none."""
    try:
        text = Path(findings).read_bytes().decode('utf-8-sig')
        rows = list(csv.reader(io.StringIO(text, newline=''), strict=True))
    except OSError as error:
        raise Error(f'--group_near_duplicates={printable(findings)}: {error.strerror}; {NAMED_BY}.') from None
    except (UnicodeDecodeError, csv.Error):
        raise _damaged(findings, '') from None
    header = rows[0] if rows else []
    if not set(COLUMNS) <= set(header):
        raise _damaged(findings, ' line 1')
    pairs = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise _damaged(findings, f' line {number}')
        cells = dict(zip(header, row, strict=True))
        if cells['kind'] in KINDS:
            pair = [_name(cells[column]) for column in COLUMNS[1:]]
            if not all(pair):
                raise _damaged(findings, f' line {number}')
            pairs.append(tuple(pair))
    return pairs


def _name(text: str) -> Name | None:
    split, _, filename = shown_by(text).partition(b'/')
    return Name(split.decode(errors='replace'), filename) if filename else None


def _damaged(findings: str | Path, where: str) -> Error:
    return Error(f'--group_near_duplicates={printable(findings)}{where} is damaged, or of another program; {NAMED_BY}.')


def shared_keys(pairs: Iterable[Sequence[int]], keys: Sequence[int]) -> dict[int, int]:
    """By the key of each picture that is in a group, the key of the group.

    It is the key of one of them, so that a group is drawn as evenly as a picture; of which one, hangs on nothing but
    their keys, and a picture that joins the group takes over only as often as its turn is.
    `keys` are those of `conversion.Outcome`, by place.
    """
    leads_to: dict[int, int] = {}

    def root(key: int) -> int:
        while leads_to.setdefault(key, key) != key:
            leads_to[key] = key = leads_to[leads_to[key]]
        return key

    for pair in pairs:
        first, *others = [keys[place] for place in pair if keys[place]] or [0]
        for other in others:
            leads_to[root(other)] = root(first)
    groups = collections.defaultdict(list)
    for key in leads_to:
        groups[root(key)].append(key)
    return {key: lender for group in groups.values() if len(group) > 1  # Copies have one key as it is.
            for lender in [min(group, key=_turn)] for key in group}


def _turn(key: int) -> bytes:
    """An order that tells nothing of the order of the keys themselves: the smallest of several would validate more."""
    return hashlib.blake2b(key.to_bytes(8, 'big'), digest_size=8).digest()


def facts(pairs: Iterable[Sequence[int]], keys: Sequence[int], labels: Sequence[int]) -> dict[str, int]:
    """How many groups there are, how many pictures in them, and how many of the groups lie in two classes."""
    shared = shared_keys(pairs, keys)
    labels_of = collections.defaultdict(set)
    pictures = 0
    for key, label in zip(keys, labels, strict=True):
        if key in shared:
            pictures += 1
            labels_of[shared[key]].add(label)
    return {'groups': len(labels_of), 'pictures': pictures,
            'in_two_classes': sum(len(found) > 1 for found in labels_of.values())}
