"""What one evaluation found: as lines and tables on a screen, and as files in --eval_dir."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

from finetune.console.files import write_atomically
from finetune.console.terminal import printable, table
from finetune.evaluation import drawings
from finetune.evaluation.metrics import ClassScore, Mistake, Requirement, Scores

SCHEMA = 1  # Of metrics.json; it changes when a name in there changes its meaning or goes.
MOST_CLASSES = 40  # Rows of the per-class table that one still reads.
MOST_DRAWN, MOST_MIXED_UP = 1000, 200  # Classes: a matrix of more than the first has only the second.
MOST_CONFUSIONS = 20


@dataclass(frozen=True)
class Example:
    """A wrongly answered picture: the mistake, the record's file name, its JPEG."""

    mistake: Mistake
    filename: bytes
    encoded: bytes


def as_text(scores: Scores, now: datetime, best_of: int = 1, has_test: bool = False) -> str:
    """What a person reads: the original's line, how sure it is, every class, and what was taken for what.

    `best_of`: how many checkpoints were measured on these records to choose this one. `has_test`: whether there are
    records that chose nothing.
    """
    figures = '\n'.join([headline(scores, now), *remarks(scores, best_of, has_test)])
    return '\n\n'.join([figures, class_table(scores), confusion_table(scores)])


def headline(scores: Scores, now: datetime) -> str:
    """The line that scripts of the original parse. The number in brackets is the number of records."""
    return (f'{now}: precision @ 1 = {scores.precision_at_1:.4f} recall @ 5 = {scores.recall_at_5:.4f} '
            f'[{scores.records} examples]')


def remarks(scores: Scores, best_of: int = 1, has_test: bool = False) -> list[str]:
    low, high = scores.interval
    lines = [f'precision @ 1 lies between {low:.4f} and {high:.4f} (95 % interval after Wilson)']
    if best_of > 1:
        lines.append(chosen(best_of, has_test))
    if scores.recall_is_trivial:
        lines.append('recall @ 5 is trivial: there are no more than 5 classes to choose from')
    return lines


def chosen(best_of: int, has_test: bool = False) -> str:
    """What is to be known of the best of several checkpoints, measured on the pictures that chose it."""
    return (f'this epoch was chosen on these pictures, as the best of {best_of}; the interval knows nothing of that: '
            'expect a little less of others'
            + (' (--subset=test has the number without that optimism)' if has_test else ''))


def class_table(scores: Scores) -> str:
    """Every class; of very many the worst by F1."""
    rows, title = scores.classes, 'Per class'
    if len(rows) > MOST_CLASSES:
        title = f'Per class, the {MOST_CLASSES} of {len(rows)} with the lowest F1 (metrics.json has all)'
        rows = sorted(rows, key=lambda row: (row.f1, row.number))[:MOST_CLASSES]
    cells = [(row.label, row.records, *map(_ratio, (row.precision, row.recall, row.f1))) for row in rows]
    return table(cells, ('class', 'records', 'precision', 'recall', 'F1'), title)


def _ratio(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def confusion_table(scores: Scores, width: int | None = None) -> str:
    """The matrix where it fits the screen, else the most frequent mistakes."""
    width = width or shutil.get_terminal_size().columns
    if 3 * len(scores.classes) < width:  # No column of it takes less than three places.
        matrix = _confusion_matrix(scores)
        if max(map(len, matrix.splitlines())) <= width:
            return matrix
    return _confusion_list(scores)


def _confusion_matrix(scores: Scores) -> str:
    shown = [row.number for row in scores.classes]
    counts = scores.confusion(shown).tolist()
    names = [scores.labels[number] for number in shown]
    rows = [(name, *(count or '.' for count in row)) for name, row in zip(names, counts, strict=True)]
    return table(rows, ('true', *names), 'Confusion: rows are true, columns are answered')


def _confusion_list(scores: Scores) -> str:
    pairs = scores.confusions()
    rows = [(scores.labels[true], scores.labels[answered], count) for true, answered, count in pairs]
    title = f'Confusion: the {len(rows[:MOST_CONFUSIONS])} most frequent of {len(rows)} kinds of mistake'
    return table(rows[:MOST_CONFUSIONS], ('true', 'answered', 'records'), title)


def calibration_line(found: Mapping) -> str:
    """What the temperature does to the probabilities, and how many pictures look like none of the classes."""
    before, after = found['before'], found['after']
    line = (f'temperature {found["temperature"]:.2f}: log loss {before["nll"]:.4f} -> {after["nll"]:.4f}, calibration '
            f'error {before["ece"]:.3f} -> {after["ece"]:.3f} (a perfect model shows {after["ece_if_perfect"]:.3f})')
    return line if found['unknown'] is None else f'{line}; {found["unknown"]} pictures would be called unknown'


def as_json(scores: Scores, requirements: Sequence[Requirement], facts: Mapping) -> dict:
    """metrics.json: `facts` (what was evaluated, where, with what), then what was found."""
    figures = scores.figures()
    confusions = [
        {'true': scores.labels[true], 'answered': scores.labels[answered], 'records': count}
        for true, answered, count in scores.confusions()
    ]
    return {
        'schema': SCHEMA,
        **facts,
        'records': scores.records,
        'figures': figures,
        'precision@1_interval_95': list(scores.interval),
        'recall@5_is_trivial': scores.recall_is_trivial,
        'requirements': {str(requirement): requirement.holds(figures) for requirement in requirements},
        'classes': [_class_facts(row) for row in scores.classes],
        'confusions': confusions,
    }


def json_text(text: str | bytes | os.PathLike) -> str:
    """A name as it is; bytes that are no text become escapes, which every JSON reader takes."""
    return os.fsencode(text).decode('utf-8', 'backslashreplace')


def _class_facts(row: ClassScore) -> dict:
    return asdict(row) | {'precision': row.precision, 'recall': row.recall, 'f1': row.f1}


def write(directory: Path, scores: Scores, examples: Sequence[Example], metrics: Mapping) -> list[Path]:
    """Writes the four files, each whole or not at all, metrics.json last; returns their paths."""
    title = f'precision @ 1 = {scores.precision_at_1:.4f} [{scores.records} examples]'
    contents = {
        'confusion.png': _png(_confusion_picture(scores, title)),
        'mistakes.csv': mistakes_csv(scores.labels, examples).encode(),
        'mistakes.png': _png(_mistakes_picture(scores, examples)),
        'metrics.json': (json.dumps(metrics, indent=1, allow_nan=False) + '\n').encode(),
    }
    for name, content in contents.items():
        write_atomically(directory / name, content)
    return [directory / name for name in contents]


def mistakes_csv(labels: Sequence[str], examples: Sequence[Example]) -> str:
    """The mistakes in their order, one line each whatever a file is called."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('place', 'filename', 'true', 'answered', 'probability', 'probability_of_true'))
    for place, example in enumerate(examples, start=1):
        mistake = example.mistake
        names = map(printable, (example.filename, labels[mistake.true], labels[mistake.answered]))
        likely = f'{mistake.probability:.6f}', f'{mistake.probability_of_true:.6f}'
        writer.writerow((place, *names, *likely))
    return text.getvalue()


def _confusion_picture(scores: Scores, title: str) -> Image.Image:
    shown = [row.number for row in scores.classes]
    if len(shown) > MOST_DRAWN:
        shown = scores.most_mixed_up(MOST_MIXED_UP)
        title += f', the {len(shown)} of {len(scores.classes):,} classes with the most mistakes'
    names = [drawings.name_of(scores.labels[number], number) for number in shown]
    return drawings.confusion(scores.confusion(shown), names, title)


def _mistakes_picture(scores: Scores, examples: Sequence[Example]) -> Image.Image:
    wrong = scores.records - scores.right
    title = f'{len(examples)} of {wrong} mistakes in {scores.records} records, the surest first'
    tiles = [_tile(place, example, scores.labels) for place, example in enumerate(examples, start=1)]
    return drawings.contact_sheet(tiles, title if wrong else f'No mistake in {scores.records} records')


def _tile(place: int, example: Example, labels: Sequence[str]) -> drawings.Tile:
    mistake = example.mistake
    true, answered = (drawings.name_of(labels[number], number) for number in (mistake.true, mistake.answered))
    name = printable(example.filename.rpartition(b'/')[2])
    lines = (f'{place}. is {true}', f'said {answered} {mistake.probability:.4f}', name)
    return drawings.Tile(drawings.thumbnail(example.encoded), lines)


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, 'PNG')
    return data.getvalue()
