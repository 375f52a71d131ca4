"""What a run writes down while it goes on: summaries for TensorBoard and a table that any program reads."""

import csv
import io
import os
from pathlib import Path

import numpy as np

from finetune.console.errors import Error
from finetune.console.files import write_atomically
from finetune.console.lazy import tf
from finetune.console.terminal import printable


class Summaries:
    """What TensorBoard shows of `directory`. TensorBoard itself need not be installed to write it."""

    BUCKETS = 30

    def __init__(self, directory: Path):
        self._writer = tf.summary.create_file_writer(os.fsencode(directory))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._write('scalars', step, {tag: tf.constant(value, tf.float32) for tag, value in values.items()})

    def histograms(self, step: int, values: dict[str, np.ndarray]) -> None:
        self._write('histograms', step, {tag: self._buckets(array) for tag, array in values.items()})

    def _buckets(self, array: np.ndarray):
        """[buckets, 3], left and right edge and count of each: what the plugin `histograms` reads."""
        finite = array[np.isfinite(array)].astype(np.float64)  # In float32, edges of a narrow range fall together.
        counts, edges = np.histogram(finite, self.BUCKETS)
        return tf.constant(np.stack([edges[:-1], edges[1:], counts], axis=1), tf.float64)

    def _write(self, plugin: str, step: int, tensors: dict) -> None:
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin))
        with self._writer.as_default():
            for tag, tensor in tensors.items():
                tf.summary.write(tag, tensor, step=step, metadata=metadata)
        self._writer.flush()


class MetricsFile:
    """metrics.csv: one row for every time the run was measured."""

    COLUMNS = ('step', 'epoch', 'loss', 'learning_rate', 'examples_per_sec',
               'validation_loss', 'validation_precision_at_1', 'validation_recall_at_5')

    def __init__(self, path: Path):
        self.path = path

    def rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline='', errors='replace') as file:
            table = csv.DictReader(file)
            rows = list(table)
        if tuple(table.fieldnames or ()) != self.COLUMNS:  # A spreadsheet may have saved it in its own way.
            raise Error(f'{printable(self.path)} is not the table that this program wrote. Restore it, or move it '
                        'away: the run goes on without its former rows.')
        return rows

    def forget_after(self, step: int) -> None:
        """Drops the rows of steps that a resumed run is going to do again."""
        rows = self.rows()
        before = [row for row in rows if int(row['step']) <= step]
        if len(before) < len(rows):
            self._write(before)

    def append(self, values: dict) -> None:
        self._write([*self.rows(), values])

    def _write(self, rows: list[dict]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
