"""A contact sheet of records: some pictures as they are stored, each with its label and the name it came from.

    python -m tools.show_records --data_dir=data/flowers --output=flowers.png
"""

import itertools
import sys

from finetune.console import command
from finetune.console.errors import UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import count, printable, say
from finetune.evaluation import drawings
from finetune.records import dataset, examples

flags = command.Flags(
    'python -m tools.show_records --data_dir=RECORDS [flags]',
    'Writes a contact sheet of the first pictures of a split, in the order of the records, which is a shuffled one.',
)
flags.path('data_dir', None, 'records to show')
flags.string('subset', 'train', 'which split')
flags.integer('count', 36, 'how many pictures', least=1)
flags.path('output', 'records.png', 'picture to write')


def main(argv=None) -> int:
    return command.run(flags, show, argv)


def show(options) -> None:
    if not options.data_dir:
        raise UsageError('--data_dir is missing; it names the records to show')
    opened = dataset.open_records(options.data_dir)
    split = opened.split(options.subset)
    stored = tf.data.TFRecordDataset(opened.paths(split.name)).map(examples.parse)
    tiles = [_tile(example, opened.labels) for example in itertools.islice(stored.as_numpy_iterator(), options.count)]
    title = f'{printable(options.data_dir)}: {len(tiles)} of {count(split.records, f"{split.name} record")}'
    drawings.contact_sheet(tiles, title).save(options.output)
    say(f'{count(len(tiles), "picture")} on {printable(options.output)}')


def _tile(example: dict, labels: tuple[str, ...]) -> drawings.Tile:
    label = int(example['label'])
    lines = (f'{label} {printable(labels[label])}', printable(example['filename'].rpartition(b'/')[2]))
    return drawings.Tile(drawings.thumbnail(example['encoded']), lines)


if __name__ == '__main__':
    sys.exit(main())
