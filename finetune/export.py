"""`finetune export`: a run -> files for elsewhere, each of which has answered real pictures as the run does."""

import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from finetune.building import staging
from finetune.checking import judgement
from finetune.console import command
from finetune.console.errors import Error, RequirementMissed, UsageError
from finetune.console.terminal import count, printable, say, show
from finetune.evaluation import answers, unknown
from finetune.exporting import card, formats, network, verification
from finetune.exporting.formats import FORMATS
from finetune.exporting.network import Network
from finetune.exporting.verification import Answers, Pictures, Trial, Verdict
from finetune.records import dataset
from finetune.records.dataset import Records
from finetune.runs import winner
from finetune.runs.run import Run, check_checkpoint

FLAGS = command.Flags(
    'finetune export RUN_OR_PROJECT --output=DIR [--format=savedmodel,…] [flags]',
    'Writes a run in formats that other programs read, with crop, resize, temperature, labels and `unknown` inside, '
    'and the code that reads them. A process without this program answers pictures with each; what does not answer '
    'as the run does is not written, and the exit code is 3.')
FLAGS.group('what')
FLAGS.string('checkpoint', 'best', 'best, last or a step (without a best one, best means last)')
FLAGS.switch('averages', True, 'use the moving averages of the weights where the run has them')
FLAGS.choice('precision', 'float32', list(formats.PRECISIONS), 'numbers inside: float16 halves the weights (openvino '
             'and litert), int8 quarters them and is fast (litert), scaled by 200 training pictures')
FLAGS.number('keep', unknown.KEEP, 'share of real pictures that get their label; what looks stranger than so many of '
             'them is `unknown`', least=0.01, most=0.9999)
FLAGS.group('where to')
FLAGS.path('output', None, 'directory that is made; it must not be there yet')
FLAGS.string('format', 'savedmodel', f'one or several of {",".join(FORMATS)}')
FLAGS.group('verification')
FLAGS.path('data_dir', None, 'records whose pictures are answered (default: those of the project; else drawn ones, '
           'which say nothing of precision)')
FLAGS.string('subset', 'validation', 'split of theirs')
FLAGS.integer('num_examples', 300, 'so many of its pictures', least=1)
FLAGS.number('max_loss', 0.02, 'of precision@1: so much int8 may cost', least=0.0, most=1.0)


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, export, argv)


def export(flags: SimpleNamespace) -> Path:
    """Writes every format, has it answer pictures, and publishes the directory if all of them answer as the run."""
    names = _check_usage(flags)
    source, target = command.expanded(flags.arguments[0]), Path(flags.output)
    run = Run(source)
    data = _records(flags, run, winner.data_directory(flags.data_dir, source))
    with verification.trials(names) as trials:  # Now: their imports take as long as all that comes before they begin.
        pictures = _pictures(flags, data)
        loaded = run.load(flags.checkpoint, flags.averages, in_float32=True)
        exported = network.of(run, loaded, flags.keep)
        if flags.precision == 'int8':
            views = verification.typical_views(data, exported.image_size, exported.crop_fraction)
            exported = dataclasses.replace(exported, typical=views)
        say(f'{run.recipe.model} with {len(exported.labels)} classes, from {printable(loaded.path)} (step {loaded.step}'
            f'); each format answers {count(len(pictures.files), "picture")}: {pictures.source}')
        with (staging.told_when_full(target, '--output'), staging.replacing(target, '--output') as private,
              ThreadPoolExecutor(1) as meanwhile):  # Converters leave a processor idle.
            ours = meanwhile.submit(verification.of_the_run, exported, pictures, loaded.path)
            for name in names:
                (private / name).mkdir()
                formats.PRECISIONS[flags.precision][name].write(exported, private)
            facts = card.facts(run, loaded, exported, pictures.source, flags.precision, names, private,
                               _findings(data))
            card.write_facts(private, facts)
            for trial in trials.values():
                trial.begin(private, pictures)
            verdicts = _verdicts(flags, trials, exported, pictures, ours.result())
            shown = card.as_table(verdicts, private)
            show(shown)
            _check(verdicts, target)
            card.write(private, facts, verdicts, shown)
    say(f'{printable(target)}: {", ".join(names)}; README.md has the code that reads them.')
    return target


def _check_usage(flags: SimpleNamespace) -> list[str]:
    if len(flags.arguments) != 1:
        raise UsageError(f'one run or project is expected, and {len(flags.arguments)} were named: '
                         '`finetune export RUN --output=DIR`')
    if not flags.output:
        raise UsageError('--output is missing: name a directory that is to be made')
    check_checkpoint(flags.checkpoint)
    names = formats.named(flags.format, flags.precision)
    target = Path(flags.output)
    is_empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if os.path.lexists(target) and not is_empty:
        raise Error(f'{printable(target)} is there already. Name another --output, or remove it first.')
    return names


def _records(flags: SimpleNamespace, run: Run, data_dir: str | None) -> Records | None:
    if data_dir is None:
        if flags.precision == 'int8':
            raise UsageError('--precision=int8 needs the training pictures, by which its numbers are scaled: give '
                             '--data_dir=RECORDS')
        return None
    data = dataset.open_records(data_dir)
    answers.check_labels(run, data)
    return data


def _findings(data: Records | None) -> dict[str, int] | None:
    """The counts of a check of these very records, where it lies beside them."""
    try:
        found = json.loads((data.directory / judgement.DIRECTORY / 'findings.json').read_text()) if data else {}
        return found['figures'] if found.get('data_fingerprint') == data.fingerprint else None
    except (OSError, ValueError, AttributeError, KeyError):
        return None


def _pictures(flags: SimpleNamespace, data: Records | None) -> Pictures:
    if data is None:
        return verification.drawn(min(flags.num_examples, verification.DRAWN))
    return verification.of_records(data, data.split(flags.subset).name, flags.num_examples)


def _verdicts(
    flags: SimpleNamespace, trials: dict[str, Trial], exported: Network, pictures: Pictures, ours: Answers
) -> dict[str, Verdict]:
    """What the answers of each format are like."""
    for trial in trials.values():
        trial.wait()  # For all of them: what an answer takes is measured with nothing beside it.
    verdicts = {}
    for name, trial in trials.items():
        theirs, milliseconds = trial.answers()
        verdicts[name] = verification.compare(
            exported, pictures, ours, theirs, milliseconds, flags.precision, flags.max_loss)
    return verdicts


def _check(verdicts: dict[str, Verdict], target: Path) -> None:
    missed = [f'{name}: {reason}' for name, verdict in verdicts.items() for reason in verdict.missed]
    if missed:
        raise RequirementMissed(f'{printable(target)} is not written, as it would answer otherwise than the run: '
                                f'{"; ".join(missed)}.')


if __name__ == '__main__':
    raise SystemExit(main())
