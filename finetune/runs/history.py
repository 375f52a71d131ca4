"""What a run measured while it trained: a table that any program reads."""

import csv
import io
from pathlib import Path

from finetune.console.errors import Error
from finetune.console.files import write_atomically
from finetune.console.terminal import printable


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
