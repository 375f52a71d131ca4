"""What a run writes down while it goes on: TensorBoard scalars and a table that any program reads."""

import csv
import io
import os
from pathlib import Path

from finetune.lazy import tf


def write_atomically(path: Path, content: bytes) -> None:
    """The file is the old one or the new one, whole, whatever happens: temporary name beside it, fsync, rename."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Scalars:
    """TensorBoard scalars under `directory`. TensorBoard itself need not be installed to write them."""

    def __init__(self, directory: Path):
        self._writer = tf.summary.create_file_writer(str(directory))
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name='scalars')
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._writer.as_default():
            for tag, value in values.items():
                tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=self._metadata)
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
        with self.path.open(newline='') as file:
            return list(csv.DictReader(file))

    def forget_after(self, step: int) -> None:
        """Drops the rows of steps that a resumed run is going to do again."""
        self._write([row for row in self.rows() if int(row['step']) <= step])

    def append(self, values: dict) -> None:
        self._write([*self.rows(), values])

    def _write(self, rows: list[dict]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
