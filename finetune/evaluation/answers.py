"""What a run answers to every record of a split: computed once, and kept for whoever asks again."""

import contextlib
import itertools
import json
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from finetune.console import files
from finetune.console.errors import Error
from finetune.console.lazy import tf
from finetune.console.terminal import Progress, printable
from finetune.evaluation import inference, metrics, unknown
from finetune.evaluation.inference import Outputs
from finetune.models import cuts, engines
from finetune.records import batches, dataset
from finetune.records.dataset import Records
from finetune.runs import checkpoint
from finetune.runs.history import MetricsFile
from finetune.runs.run import Loaded, Run

FILE = 'answers.npz'


def load(run: Run, which: str | int, averages: bool, strategy) -> Loaded:
    """The best, the last or the numbered checkpoint; where training replaces it meanwhile, its successor."""
    while True:
        present = run.steps(), run.best_step
        try:
            return run.load(which, averages, strategy)
        except Error:
            if (run.steps(), run.best_step) == present:
                raise


def answer(
    run: Run, loaded: Loaded, data: Records, split: str, engine: str, strategy, batch_size: int,
    threads: int | None = None, most: int | None = None,
) -> Outputs:
    """The network's outputs for every record once, or for the first `most`; extra is their familiarity, if known."""
    total = data.split(split).records
    count = min(total, most or total)
    recipe = run.recipe
    pictures = batches.for_evaluation(data, split, recipe.image_size, recipe.crop_fraction, batch_size, threads)
    pictures = pictures.take(-(-count // batch_size))
    trust = loaded.trust
    network = cuts.with_features(loaded.model) if trust and trust.can_abstain else loaded.model
    answers_of = engines.frozen(network, engine, strategy.num_replicas_in_sync)
    try:
        with Progress('Evaluating', count, 'pictures') as progress:
            outputs = inference.outputs(
                answers_of, pictures, strategy, progress.advance,
                lambda features, logits: unknown.familiarity(
                    features, logits, trust.class_means, trust.energy_weight, trust.scores))
        dataset.check_unchanged(data.directory, data.fingerprint)
    except tf.errors.OpError:
        dataset.check_unchanged(data.directory, data.fingerprint)
        dataset.verify(data)  # If a shard is damaged, this names it.
        raise
    if len(outputs.labels) < count:
        raise Error(f'{printable(data.directory)}: {printable(split)} has {len(outputs.labels)} of {count} records. '
                    'Build the records again.')
    broken = int(np.sum(metrics.by_rows(lambda logits: ~np.isfinite(logits).all(axis=1), outputs.logits)))
    if broken:
        raise Error(f'{printable(loaded.path)}: the outputs for {broken} of {count} pictures are not finite. '
                    'Evaluate another checkpoint with --checkpoint=STEP.')
    return outputs.first(count)


def check_labels(run: Run, others: Run | Records) -> None:
    """The run and the records, or another run, must number the same classes in the same way."""
    if run.labels == others.labels:
        return
    places = itertools.zip_longest(run.labels, others.labels, fillvalue=None)
    number, (ours, theirs) = next((i, pair) for i, pair in enumerate(places) if pair[0] != pair[1])
    ours, theirs = (repr(printable(label)) if label else 'nothing' for label in (ours, theirs))
    way_out = ('Only runs with the same classes can be compared' if isinstance(others, Run) else
               'Evaluate on records that were built with '
               f'--labels_file={printable(run.directory / "labels.txt")}')
    raise Error(
        f'label {number} is {ours} in {printable(run.directory)} ({len(run.labels)} labels) and {theirs} in '
        f'{printable(others.directory)} ({len(others.labels)} labels). {way_out}.')


def best_of(run: Run, step: int, data: Records, split: str) -> int:
    """How many checkpoints were measured on these very records to choose this one: 1 where there was no choice."""
    if not (chose(run, data, split) and step == run.best_step):
        return 1
    rows = []
    with contextlib.suppress(Error):  # The table was changed: no reason to lose the answers to every record.
        rows = MetricsFile(run.directory / 'metrics.csv').rows()
    return max(1, sum(bool(row['validation_precision_at_1']) for row in rows))


def chose(run: Run, data: Records, split: str) -> bool:
    """Whether these are the pictures that the run was validated on."""
    return split == 'validation' and run.records['fingerprint'] == data.fingerprint


# Kept beside the run --------------------------------------------------------------------------------------


def identity(run: Run, path: str | Path, data: Records, split: str, averages: bool) -> str | None:
    """All that decides the answers of the checkpoint at `path`, as text; None where it is gone by now."""
    try:
        weights = checkpoint.fingerprint(Path(path))
    except FileNotFoundError:  # Training keeps only the newest few.
        return None
    recipe = run.recipe
    return json.dumps({
        'records': data.fingerprint, 'subset': split, 'weights': weights,
        'averages': averages and recipe.moving_average_decay > 0,
        'model': recipe.model, 'image_size': recipe.image_size, 'crop_fraction': recipe.crop_fraction,
    })


def keep(directory: Path, outputs: Outputs, of: str | None) -> list[Path]:
    """Writes the answers with what they are of (see `identity`), if that is known; returns what was written."""
    if of is None:
        return []
    small = {'of': np.array(of), 'label': outputs.labels, 'filename': np.array(outputs.filenames, 'S')}
    with files.written_atomically(directory / FILE) as file, zipfile.ZipFile(file, 'w') as archive:
        for name, array in small.items():
            with archive.open(f'{name}.npy', 'w') as member:
                np.lib.format.write_array(member, array)
        with archive.open('logits.npy', 'w', force_zip64=True) as member:
            _write_by_rows(member, outputs.logits)
    return [directory / FILE]


def _write_by_rows(file: BinaryIO, array: np.ndarray) -> None:
    """As np.save does, which would keep all of a mapped array in memory."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    metrics.by_rows(lambda rows: np.array([file.write(rows.tobytes())]), array)


def kept(run: Run, of: str | None, count: int) -> tuple[Outputs, Path] | None:
    """The answers to all `count` records that an evaluation of the run has kept of just this, and where they lie."""
    there = (path for path in run.directory.glob(f'eval/*/{FILE}') if path.is_file())  # No FIFO.
    for path in sorted(there):
        with contextlib.suppress(Exception):  # Of many kinds, on damaged bytes: the answers are then computed again.
            with np.load(path) as file:
                if str(file['of']) != of or file['label'].shape != (count,):
                    continue
                outputs = Outputs(file['label'], file['logits'], file['filename'].tolist())
            if outputs.logits.shape == (count, len(run.labels)) and np.isfinite(outputs.logits).all():
                return outputs, path
    return None
