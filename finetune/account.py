"""What a build tells: its start screen, its warnings, skipped.csv, the facts in dataset.json, and its last line."""

import collections
import csv
import io
import json
import platform
import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from PIL import features

from finetune import conversion, records
from finetune.plan import Plan
from finetune.sources.folders import Skip
from finetune.sources.labels import label_of
from finetune.terminal import printable, say, table, warn

SMALL_CLASS = 20
ROWS_SHOWN = 20
NAMES_SHOWN = 5
MANY_REJECTED = 0.05


# ---- before ----


def start_screen(plan: Plan, output: Path) -> None:
    say(f'Building records in {printable(output)}')
    for part in plan.parts:
        say(f'  {" and ".join(part.splits)} from {printable(part.listing.directory)}: {len(part.source)} pictures')
    if plan.validation_percent:
        chosen = ' (chosen automatically; --validation_percent or --validation_directory decides)'
        say(f'  {plan.validation_percent:g} % of the pictures, by content, are kept for validation'
            + chosen * plan.automatic_percent)
    counts = [{label_of(folder): len(names) for folder, names in part.listing.pictures.items()} for part in plan.parts]
    rows = [(number, label, *(count.get(label, 0) for count in counts)) for number, label in enumerate(plan.labels)]
    header = ('label', 'class', *('+'.join(part.splits) for part in plan.parts))
    say(table(rows[:ROWS_SHOWN + 1], header))
    if len(rows) > ROWS_SHOWN + 1:
        say(f'… and {len(rows) - ROWS_SHOWN - 1} more classes')
    shards = ', '.join(f'{count} {name}' for name, count in plan.shards.items())
    say(f'Shards: {shards}. Worker processes: {plan.processes} (--num_threads).')
    for warning in _listing_warnings(plan):
        warn(warning)


def _listing_warnings(plan: Plan) -> Iterator[str]:
    for part in plan.parts:
        where, listing = printable(part.listing.directory), part.listing
        found = {label_of(folder): len(names) for folder, names in listing.pictures.items()}
        missing = [label for label in plan.labels[1:] if label not in found]
        if missing:
            yield f'{where} has no folder for {_some(missing)}.'
        unlisted = [label for label in found if label not in plan.labels]
        if unlisted:
            pictures = sum(found[label] for label in unlisted)
            yield f'{where}: {_some(unlisted)} not in the labels file; {pictures} pictures are left out.'
        if listing.stray:
            yield f'{where}: {listing.stray} pictures beside the class folders are left out.'
    for name, change in (('case', str.casefold), ('Unicode normal form', lambda text: unicodedata.normalize('NFC', text))):
        alike = collections.Counter(map(change, plan.labels))
        twins = [label for label in plan.labels if alike[change(label)] > 1]
        if twins:
            yield f'classes {_some(twins)} differ only in {name}; some systems take them for one folder.'


# ---- after ----


def facts(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> dict:
    """The part of dataset.json that tells how the records came about."""
    skipped = collections.Counter(skip.reason for skip in skips(plan, outcomes))
    sizes = [size for outcome in outcomes for size in (outcome.smallest, outcome.largest) if size]
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    written = sum(1 for outcome in outcomes for key in outcome.keys if key)
    return {
        'found': written + skipped.total(),
        'written': written,
        'skipped': dict(sorted(skipped.items())),
        'ignored': dict(sorted(sum((part.listing.ignored for part in plan.parts), collections.Counter()).items())),
        'notes': dict(sorted(sum((outcome.notes for outcome in outcomes), collections.Counter()).items())),
        'duplicates': _duplicates(plan, outcomes),
        'sizes': {'smallest': by_area[0], 'largest': by_area[-1]} if by_area else {},  # Height, width.
        'sources': {'+'.join(part.splits): printable(part.listing.directory) for part in plan.parts},
        'validation_percent': plan.validation_percent,
        'options': plan.options,
        'seed': plan.seed,
        'versions': {'python': platform.python_version(), 'pillow': metadata.version('pillow'),
                     'libjpeg_turbo': features.version('libjpeg_turbo')},
    }


def skips(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> list[Skip]:
    """Everything that was found and is not in the records, in the order of its path."""
    listed = [skip for part in plan.parts for skip in part.listing.skipped]
    judged = [
        Skip(part.listing.directory.rstrip(b'/') + b'/' + rejected.image.filename, rejected.reason, rejected.detail)
        for part, outcome in zip(plan.parts, outcomes, strict=True) for rejected in outcome.rejected
    ]
    return sorted(listed + judged)


def skipped_csv(skipped: Sequence[Skip]) -> str:
    """file,reason,detail; a name can break neither a line nor a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('file', 'reason', 'detail'))
    for skip in skipped:
        writer.writerow((printable(skip.path), skip.reason, printable(skip.detail)))
    return text.getvalue()


def _duplicates(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> dict:
    parts = [(part.source, outcome, part.split_of) for part, outcome in zip(plan.parts, outcomes, strict=True)]
    groups = conversion.duplicates(parts, plan.seed)
    two_classes = [group for group in groups if len({place.label for place in group}) > 1]
    two_splits = [group for group in groups if len({place.split for place in group}) > 1]
    return {
        'pictures': sum(len(group) - 1 for group in groups),
        'in_two_classes': len(two_classes),
        'in_two_splits': len(two_splits),
        'examples': {
            'same_class': _examples([group for group in groups if group not in two_classes + two_splits]),
            'in_two_classes': _examples(two_classes),
            'in_two_splits': _examples(two_splits),
        },
    }


def _examples(groups: list[list[conversion.Place]]) -> list[list[str]]:
    return [[f'{place.split}/{printable(place.filename)}' for place in group[:NAMES_SHOWN]]
            for group in groups[:NAMES_SHOWN]]


def warnings(plan: Plan, splits: Sequence[records.Split], told: Mapping) -> Iterator[str]:
    """What the person should know before training on it."""
    per_class = {split.name: split.per_class for split in splits}
    totals = [sum(counts) for counts in zip(*per_class.values(), strict=True)]
    names = range(1, len(plan.labels))  # The background may be small or missing.
    empty = [plan.labels[i] for i in names if not totals[i]]
    if empty:
        yield f'no usable picture of {_some(empty)}; the class keeps its number and cannot be learned.'
    if sum(1 for i in names if totals[i]) == 1:
        yield 'there is one class; a classifier needs two to tell apart.'
    for split, counts in per_class.items():
        missing = [plan.labels[i] for i in names if totals[i] and not counts[i]]
        if missing:
            yield f'{split} has no picture of {_some(missing)}.'
    small = [plan.labels[i] for i in names if 0 < totals[i] < SMALL_CLASS]
    if small:
        yield f'fewer than {SMALL_CLASS} pictures of {_some(small)}; expect little of them.'
    for split in splits:
        if split.records < len(split.shards):
            yield f'{split.name} has {split.records} pictures in {len(split.shards)} shards; some are empty.'
    yield from _duplicate_warnings(told['duplicates'])


def _duplicate_warnings(duplicates: Mapping) -> Iterator[str]:
    if duplicates['in_two_classes']:
        yield (f'{duplicates["in_two_classes"]} pictures are in two classes (train or validation), such as '
               f'{" = ".join(duplicates["examples"]["in_two_classes"][0])}; one of the labels is wrong.')
    if duplicates['in_two_splits']:
        yield (f'{duplicates["in_two_splits"]} pictures are in train and in validation, such as '
               f'{" = ".join(duplicates["examples"]["in_two_splits"][0])}; figures will look better than they are '
               '(--fail_on_leak makes this an error).')
    same = duplicates['examples']['same_class']
    if same:
        yield f'{duplicates["pictures"]} pictures are copies of others, such as {" = ".join(same[0])}.'


def counts_line(told: Mapping, where: str) -> str:
    """found = written + skipped, always."""
    line = f'found {told["found"]} pictures: wrote {told["written"]}, skipped {told["found"] - told["written"]}'
    if told['skipped']:
        line += f' ({_by_reason(told["skipped"])}); list: {where}'
    if told['ignored']:
        line += f'; other files passed over: {sum(told["ignored"].values())} ({_by_reason(told["ignored"])})'
    if told['found'] - told['written'] > MANY_REJECTED * told['found']:
        line = f'WARNING: more than {MANY_REJECTED:.0%} were skipped. {line}'
    return line


def end_screen(output: Path, splits: Sequence[records.Split], told: Mapping) -> None:
    """The files made, the next command, and the counts in the last line."""
    for split in splits:
        print(f'{split.name}: {split.records} records in {len(split.shards)} shards')
    shards = [split.shards[0].name + (' …' if len(split.shards) > 1 else '') for split in splits]
    print(f'made in {printable(output)}: {", ".join((*shards, records.MANIFEST, records.LABELS, records.SKIPPED))}')
    data, run = shlex.quote(str(output)), shlex.quote(f'checkpoints/{output.resolve().name}')
    say(f'next: finetune train --data_dir={data} --train_dir={run} --pretrained=sample --fine_tune')
    print(counts_line(told, printable(output / records.SKIPPED)))


def as_json(manifest: Mapping) -> str:
    return json.dumps(manifest, indent=1) + '\n'  # ASCII: names with odd characters stand as escapes.


def _by_reason(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count} {reason}' for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _some(names: Sequence[str]) -> str:
    text = ', '.join(printable(name) for name in names[:NAMES_SHOWN])
    return text + (f' and {len(names) - NAMES_SHOWN} more' if len(names) > NAMES_SHOWN else '')
