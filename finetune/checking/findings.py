"""What was found about data: one row each, in a table for people and programs, and in a few lines on a screen."""

import collections
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.checking.album import Album
from finetune.console.terminal import count, printable, some

KINDS = {  # What each says, the most harmful first.
    'leak': 'the same picture in two splits: figures look better than they are',
    'contradiction': 'the same picture in two classes: one label is wrong',
    'label_error': 'probably in the wrong class',
    'shortcut': 'something that is no content tells the class',
    'duplicate': 'the same picture twice in one class',
    'outlier': 'like no class at all',
    'blurred': 'blurred',
    'dark': 'too dark',
    'bright': 'too bright',
    'uniform': 'nearly nothing to be seen',
    'tiny': 'much smaller than the network looks at',
    'shape': 'extreme in shape',
    'imbalance': 'a class far smaller than the largest',
    'small_class': 'a class too small to be measured',
}
ODD = ('outlier', 'blurred', 'dark', 'bright', 'uniform', 'tiny', 'shape')
PAIRS = ('leak', 'contradiction', 'duplicate')
EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    kind: str  # A name of KINDS.
    score: float  # How sure it is or how far it goes, 0 to 1.
    suggestion: str
    places: tuple[int, ...] = ()  # Of the pictures in the album: the one, and the other of a pair.
    label: str = ''  # The class, where it is about one.


def ordered(found: Sequence[Finding]) -> list[Finding]:
    """The most harmful kind first, of one kind the surest."""
    kinds = list(KINDS)
    return sorted(found, key=lambda finding: (kinds.index(finding.kind), -finding.score, finding.places))


def figures(found: Sequence[Finding]) -> dict[str, int]:
    """The counts, by the names that --require and findings.json know them by."""
    of = collections.Counter(finding.kind for finding in found)
    pairs = {finding.places for finding in found if finding.kind in PAIRS}
    return {
        'duplicates': len(pairs), 'leaks': of['leak'], 'contradictions': of['contradiction'],
        'label_errors': of['label_error'], 'odd': sum(of[kind] for kind in ODD), 'shortcuts': of['shortcut'],
        'imbalanced': of['imbalance'], 'small_classes': of['small_class'],
    }


def as_csv(album: Album, found: Sequence[Finding]) -> str:
    """kind,file,other_file,score,suggestion; a name can break neither a line nor a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('kind', 'file', 'other_file', 'score', 'suggestion'))
    for finding in found:
        names = [*_names(album, finding), '', ''][:2]
        writer.writerow((finding.kind, *names, f'{finding.score:.4f}', finding.suggestion))
    return text.getvalue()


def as_text(album: Album, found: Sequence[Finding], remarks: Mapping[str, str]) -> str:
    """The kinds that were found with their surest examples. `remarks` are the sentences that stand below a kind."""
    lines = []
    for kind, what in KINDS.items():
        of_kind = [finding for finding in found if finding.kind == kind]
        if not of_kind:
            continue
        lines.append(f'{kind}: {count(len(of_kind), "finding")}, {what}')
        lines += [f'  {remarks[kind]}'] if kind in remarks else []
        for finding in of_kind[:EXAMPLES_SHOWN]:
            names = ' = '.join(_names(album, finding))
            lines.append(f'  {finding.score:.2f}  {names + ": " if names else ""}{finding.suggestion}')
        if len(of_kind) > EXAMPLES_SHOWN:
            lines.append(f'  and {len(of_kind) - EXAMPLES_SHOWN:,} more')
    absent = [kind for kind in KINDS if kind not in {finding.kind for finding in found}]
    return '\n'.join([*lines, f'Nothing found: {some(absent, len(absent))}'] if absent else lines)


def _names(album: Album, finding: Finding) -> list[str]:
    if finding.label:
        return [printable(finding.label)]
    return [printable(album.name(place)) for place in finding.places]
