"""Writes report.html: one file that opens without a network, a script, or this program."""

import types
from datetime import datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from finetune.checking import findings
from finetune.console import terminal
from finetune.console.files import write_atomically
from finetune.console.terminal import printable
from finetune.evaluation import metrics
from finetune.evaluation.metrics import ClassScore, wilson
from finetune.records import dataset
from finetune.reporting import charts, evidence, figures, gallery, sentences
from finetune.reporting.contents import Contents
from finetune.reporting.gallery import Place, Tile
from finetune.runs import trust

HERE = Path(__file__).parent
MOST_CLASSES = 200  # Rows of a table.
MOST_SKIPPED = 20
OF_MACHINE = {'processor': 'processor', 'cores': 'cores', 'memory_gib': 'memory, GiB', 'gpus': 'GPUs',
              'system': 'system', 'kernels': 'kernels'}
FEWEST_ROWS = 2  # Of a history that makes a curve.


def write(path: Path, contents: Contents) -> None:
    """The file is the old report or the new one, whole. The pictures are read from the records."""
    write_atomically(Path(path), render(contents).encode())


def render(contents: Contents) -> str:
    """The page as HTML. Every name in it went through `printable`, and then through the template's escapes."""
    parts = {
        'answers': _answers(contents), 'walls': _walls(contents), 'confidence': _confidence(contents),
        'curve': _learning_curve(contents), 'training': _training(contents), 'data': _data(contents),
        'facts': _facts(contents)}
    encoded = gallery.stored(contents.data, set(_places(parts)))
    return _environment().get_template('report.html').render(
        contents=contents, **parts, looks=_looks(contents, parts['answers'], encoded),
        thumbnails={place: gallery.thumbnail(picture) for place, picture in encoded.items()},
        style=Markup((HERE / 'style.css').read_text()), now=datetime.now())


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters |= {
        'name': printable, 'percent': sentences.percent, 'between': sentences.between, 'command': _command,
        'duration': terminal.duration, 'thousands': '{:,}'.format}
    environment.globals |= {'charts': charts, 'figures': figures, 'sentences': sentences, 'KINDS': findings.KINDS}
    return environment


def _command(words: str) -> str:
    """As it is, ready to paste, where nothing in it could show as something else."""
    return words if terminal.can_be_shown(words) else printable(words)


# Sections: values that the template shows; None where the project lacks what they are made of ---------------


def _answers(contents: Contents) -> types.SimpleNamespace | None:
    """How good, what is mixed up, the surest mistakes."""
    outputs, scores = contents.outputs, contents.scores
    if not (outputs and scores):
        return None
    fitted = contents.loaded.trust if contents.loaded else None
    logits = outputs.logits / (fitted.temperature if fitted else 1)  # So that figures are those of `finetune predict`.
    mistakes = metrics.worst_mistakes(outputs.labels, logits, len(logits))
    pairs, surest = scores.confusions(), mistakes[:gallery.MOST_MISTAKES]
    rows = sorted(scores.classes, key=lambda row: (row.recall is None, row.recall, row.number))
    return types.SimpleNamespace(
        rows=[_class_row(row) for row in rows[:MOST_CLASSES]], classes=len(rows), wrong=scores.records - scores.right,
        pairs=pairs[:gallery.MOST_CONFUSIONS], kinds_of_mistake=len(pairs),
        of_pairs=[gallery.of_confusion(contents, mistakes, true, answered)
                  for true, answered, _ in pairs[:gallery.MOST_CONFUSIONS]],
        mistakes=surest, tiles=gallery.of_mistakes(contents, surest))


def _class_row(row: ClassScore) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        label=row.label, records=row.records, answered=row.answered, recall=row.recall, precision=row.precision,
        recall_interval=wilson(row.right, row.records) if row.records else None,
        precision_interval=wilson(row.right, row.answered) if row.answered else None)


def _walls(contents: Contents) -> dict[str, gallery.Wall] | None:
    """Findings with pictures, by their kind."""
    if not contents.checked:
        return None
    kinds = ('label_error', *findings.PAIRS, *findings.ODD)
    return {kind: gallery.of_kind(contents.checked, kind) for kind in kinds}


def _confidence(contents: Contents) -> types.SimpleNamespace | None:
    if not (contents.outputs and contents.scores):
        return None
    labels, logits = contents.outputs.labels, contents.outputs.logits
    scaled = sentences.scaled_logits(contents)
    best = logits if scaled is None else scaled
    kept = contents.run.directory / trust.FILE if contents.run else None
    return types.SimpleNamespace(
        lines=sentences.temperature(contents) if scaled is not None else [],
        only_sure=sentences.if_only_sure(labels, best), reliability=figures.reliability(labels, logits, scaled),
        abstention=figures.abstention(labels, best), rows=figures.abstention_rows(labels, best),
        trust_bytes=kept.stat().st_size if kept and kept.is_file() else 0)


def _learning_curve(contents: Contents) -> Markup | None:
    curve = contents.checked.curve if contents.checked else None
    return figures.learning_curve(curve) if curve else None


def _training(contents: Contents) -> list[Markup]:
    return figures.training(contents.history) if len(contents.history) >= FEWEST_ROWS else []


def _data(contents: Contents) -> types.SimpleNamespace:
    splits = list(contents.data.splits.values())
    rows = [(label, [split.per_class[number] for split in splits]) for number, label in enumerate(contents.data.labels)]
    rows = [(label, counts) for label, counts in rows if any(counts)]
    told = dataset.told(contents.data)
    return types.SimpleNamespace(
        splits=splits, rows=rows[:MOST_CLASSES], classes=len(rows),
        largest=max(max(counts) for _, counts in rows), told=told,
        skipped=sum((told.get('skipped') or {}).values()), skipped_rows=dataset.skipped(contents.data, MOST_SKIPPED),
        of_classes=[finding for finding in contents.checked.found if finding.label] if contents.checked else [])


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """What it was made with."""
    found, run, data = contents.found, contents.run, contents.data
    machine = found.get('machine') or {}
    rows = [('records', data.directory), ('their fingerprint', data.fingerprint)]
    if run:
        recipe = run.recipe
        rows += [('run', run.directory), ('network', recipe.model), ('width', recipe.width),
                 ('picture size', f'{recipe.image_size} px'), ('first weights', recipe.pretrained),
                 ('seed', recipe.seed)]
    if contents.loaded:
        rows += [('checkpoint', contents.loaded.path), ('step', contents.loaded.step)]
    rows += [(what, machine.get(name)) for name, what in OF_MACHINE.items()]
    rows += [(name, version) for name, version in (found.get('versions') or {}).items()]
    if found.get('seconds'):
        rows.append(('evaluation took', f'{found["seconds"]:.1f} s with {found.get("engine")}'))
    return [(name, _text(value)) for name, value in rows if value not in ('', None, [])]


def _text(value) -> str:
    return printable(', '.join(value) if isinstance(value, list) else value if isinstance(value, Path) else str(value))


# Pictures -------------------------------------------------------------------------------------------------


def _places(parts: dict) -> set[Place]:
    """Of all pictures that the page shows."""
    answers, walls = parts['answers'], parts['walls'] or {}
    tiles: list[Tile] = [tile for wall in walls.values() for tile in wall.tiles]
    if answers:
        tiles += [*answers.tiles, *(tile for of_pair in answers.of_pairs for tile in of_pair)]
    return {place for tile in tiles for place in tile.places}


def _looks(contents: Contents, answers, encoded: dict[Place, bytes]) -> list[types.SimpleNamespace] | None:
    """For each mistake, what the network saw and where it looked; None where that is not known."""
    if not (answers and contents.loaded and contents.run):
        return None
    pictures = [encoded[tile.places[0]] for tile in answers.tiles]
    classes = [mistake.answered for mistake in answers.mistakes]
    recipe, among = contents.run.recipe, list(contents.run.answerable)
    looks = evidence.looks(contents.loaded.model, recipe.image_size, recipe.crop_fraction, pictures, classes, among)
    return looks and [types.SimpleNamespace(
        view=gallery.as_uri(look.view), where=gallery.as_uri(look.where), words=look.words) for look in looks]
