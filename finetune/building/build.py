"""Pictures become records: a directory that appears whole, or not at all.

    list, lock, say what was understood → judge and write in a private folder → dataset.json → exchange
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from finetune.building import account, conversion, plan, staging
from finetune.building.sources import Skip
from finetune.console import files, signals
from finetune.console.errors import Error, UsageError
from finetune.console.terminal import Progress, count, printable, say, warn
from finetune.records import dataset

BESIDE_SHARDS = {  # What is replaced with the shards: some can be made again, the last ones nobody would miss.
    dataset.MANIFEST, dataset.LABELS, dataset.SKIPPED, 'features', 'check', '.DS_Store', 'Thumbs.db', 'desktop.ini',
}
SKIPS_SHOWN = 20
PICTURES_TOLD = 100  # At once: to be told of a picture takes a bar longer than to copy a small one.
LIMITED_BY = {'file_too_big': 'max_bytes', 'too_many_pixels': 'max_pixels'}  # By reason; of folders.


@dataclasses.dataclass(frozen=True)
class Built:
    splits: list[dataset.Split]
    told: dict  # How the records came about.
    manifest: dict  # dataset.json


def build(options) -> Built:
    """Lists, judges and writes; what goes wrong before the exchange leaves the old records as they were.

    `options` has the names of `options.add_flags`, and `given`, those that somebody typed.
    """
    output = Path(options.output_directory)
    planned = plan.make(options)
    _check_output(output, options)
    with signals.raised(), staging.told_when_full(output), staging.replacing(output) as private:
        account.start_screen(planned, output, options.validation_percent is None)
        _check_space(planned, private)
        splits, outcomes = _write_shards(planned, private)
        told = account.facts(planned, outcomes)
        for warning in account.warnings(planned, outcomes, splits, told):
            warn(warning)
        skips = [_with_flag(skip, options) for skip in account.skips(planned, outcomes)]
        _check_result(told, skips, list(planned.shards), options)
        splits = [split for split in splits if split.records or _remove(private, split)]
        manifest = dataset.manifest(planned.labels, splits, planned.parts[0].source.loader.format, told)
        _write(private / dataset.LABELS, ''.join(f'{label}\n' for label in planned.labels[1:]))
        _write(private / dataset.SKIPPED, account.skipped_csv(skips))
        _write(private / dataset.MANIFEST, account.as_json(manifest))
    return Built(splits, told, manifest)


def _check_output(output: Path, options) -> None:
    """The user's own files are never replaced: not the pictures, and, unless asked, nothing no build wrote."""
    target = output.resolve()
    for directory in filter(None, (getattr(options, name) for name in (*plan.DIRECTORIES, 'tfds_dir', 'labels_csv'))):
        source = Path(directory).resolve()
        if target == source or target in source.parents or source in target.parents:
            raise UsageError(f'--output_directory={printable(output)} and {printable(directory)}, which is read, '
                             'lie one in the other; choose another output directory')
    if target in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f'--output_directory={printable(output)} is the folder that you are in, or one above it, and '
                         'would be replaced under your feet; name another one, or cd to another folder first')
    if output.exists() and not output.is_dir():
        raise Error(f'--output_directory={printable(output)} is a file; name a directory.')
    if options.overwrite or not output.exists():
        return
    names, ours = sorted(entry.name for entry in output.iterdir()), dataset.is_marked(output)
    foreign = [name for name in names if not (ours and _may_stand_in_records(name))]
    if foreign:
        raise Error(f'{printable(output)} holds {printable(foreign[0])}, which no build wrote; choose another '
                    '--output_directory, or replace everything in it with --overwrite.')


def _may_stand_in_records(name: str) -> bool:
    return name in BESIDE_SHARDS or dataset.SHARD_NAME.fullmatch(name) is not None


def _check_space(planned: plan.Plan, private: Path) -> None:
    """Refuses early when what is stored as it is needs more room than there is."""
    need = sum(part.source.stored_bytes() for part in planned.parts)
    if not all(part.only_split for part in planned.parts):
        need += min(need, conversion.SPOOL_FILE_BYTES)
    free = shutil.disk_usage(private).free
    if need > free:
        raise Error(f'the records will take about {need / 2**30:.1f} GiB and {printable(private.parent)} has '
                    f'{free / 2**30:.1f} GiB free. Make room, choose another --output_directory, or store '
                    'smaller pictures with --short_side.')


def _write_shards(planned: plan.Plan, private: Path) -> tuple[list[dataset.Split], list[conversion.Outcome]]:
    with contextlib.ExitStack() as stack:
        writers = {
            split: stack.enter_context(conversion.split_writer(
                private, split, shards, planned.places(split), len(planned.labels)))
            for split, shards in planned.shards.items()
        }
        spool = stack.enter_context(conversion.spool(private))
        with Progress('Building', planned.pictures, 'pictures') as progress:
            outcomes = [
                conversion.convert(part.source, planned.labels, writers.get(part.only_split, spool).write, planned.seed,
                                   planned.processes, progress.advance, modules=(__name__,))
                for part in planned.parts
            ]
            say(f'{count(progress.done, "picture")} in {progress.seconds:.1f} s, {progress.per_second:.0f} pictures/s')
        for part, outcome in zip(planned.parts, outcomes, strict=True):
            outcome.splits = part.split_of_each(outcome.keys, outcome.labels, planned.percents)
            if not part.only_split:
                _share_out(spool, outcome, writers)
        return [writer.close() for writer in writers.values()], outcomes


def _share_out(
    spool: conversion.Spool, outcome: conversion.Outcome, writers: dict[str, conversion.SplitWriter]
) -> None:
    """Writes the records that waited to be told their split."""
    with Progress('Splitting', outcome.written, 'pictures') as progress:
        for number, (place, label, record) in enumerate(spool.read(), 1):
            writers[outcome.splits[place]].write(place, label, record)
            if number % PICTURES_TOLD == 0:
                progress.advance(PICTURES_TOLD)


def _check_result(told: dict, skips: Sequence[Skip], splits: Sequence[str], options) -> None:
    """Reasons not to publish what was written."""
    if not told['written']:
        raise Error(f'no picture can be used; nothing was changed. {_first(skips)}')
    if options.strict and skips:
        raise Error(f'--strict: {count(len(skips), "file")} would be skipped; nothing was changed. {_first(skips)}')
    leaks = told['duplicates']['in_two_splits']
    if options.fail_on_leak and leaks:
        raise Error(f'--fail_on_leak: {count(leaks, "picture")} {account.between(splits)}; nothing was changed.')


def _with_flag(skip: Skip, options) -> Skip:
    """The detail of a picture above a limit also names the flag that raises it; the gate knows of no flags."""
    flag = LIMITED_BY.get(skip.reason) if options.source == 'folders' else None
    if not flag or not skip.detail.endswith(f'the limit is {getattr(options, flag)}'):
        return skip
    return skip._replace(detail=f'{skip.detail} (--{flag})')


def _first(skips: Sequence[Skip]) -> str:
    """Names what was skipped on the screen, as no skipped.csv is left behind."""
    for skip in skips[:SKIPS_SHOWN]:
        say(f'  {printable(skip.path)}: {skip.reason}: {printable(skip.detail)}')
    if not skips:
        return ''
    return f'The first {SKIPS_SHOWN} of {len(skips)} stand above.' if skips[SKIPS_SHOWN:] else 'The list stands above.'


def _remove(private: Path, split: dataset.Split) -> None:
    """A split without pictures is no split."""
    for shard in split.shards:
        (private / shard.name).unlink()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')
    files.make_durable(path)
