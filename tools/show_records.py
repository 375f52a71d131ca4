"""A contact sheet of records: some pictures as they are stored, each with its label and the name it came from.

    python -m tools.show_records --data_dir=data/flowers --output=flowers.png
    python -m tools.show_records --data_dir=data/flowers --as_trained --distortion=inception --mixup=0.2
"""

import itertools
import sys

from PIL import Image

from finetune.console import command
from finetune.console.errors import UsageError
from finetune.console.lazy import tf
from finetune.console.terminal import count, printable, say
from finetune.evaluation import drawings
from finetune.records import batches, dataset, examples
from finetune.runs import recipe as recipes

AS_TRAINED = ('image_size', *recipes.OF_DISTORTION, 'mixup', 'cutmix', 'seed')
flags = command.Flags(
    'python -m tools.show_records --data_dir=RECORDS [flags]',
    'Writes a contact sheet of the first pictures of a split, in the order of the records, which is a shuffled one.',
)
flags.path('data_dir', None, 'records to show')
flags.string('subset', 'train', 'which split')
flags.integer('count', 36, 'how many pictures', least=1)
flags.path('output', 'records.png', 'picture to write')
flags.switch('as_trained', False, 'distorted and mixed instead, as a training with the flags below sees them first')
recipes.add_flags(flags, AS_TRAINED)


def main(argv=None) -> int:
    return command.run(flags, show, argv)


def show(options) -> None:
    if not options.data_dir:
        raise UsageError('--data_dir is missing; it names the records to show')
    opened = dataset.open_records(options.data_dir)
    split = opened.split(options.subset)
    tiles = _as_trained(opened, options) if options.as_trained else _as_stored(opened, options)
    title = f'{printable(options.data_dir)}: {len(tiles)} of {count(split.records, f"{split.name} record")}'
    drawings.contact_sheet(tiles, title).save(options.output)
    say(f'{count(len(tiles), "picture")} on {printable(options.output)}')


def _as_stored(opened: dataset.Records, options) -> list[drawings.Tile]:
    stored = tf.data.TFRecordDataset(opened.paths(options.subset)).map(examples.parse)
    return [drawings.Tile(drawings.thumbnail(example['encoded']),
                          (_labelled(opened, example['label']), _named(example['filename'])))
            for example in itertools.islice(stored.as_numpy_iterator(), options.count)]


def _as_trained(opened: dataset.Records, options) -> list[drawings.Tile]:
    typed = {name: getattr(options, name) for name in AS_TRAINED if name in options.given}
    recipe = recipes.plan({'batch_size': 2} | typed, None, opened.split(options.subset).records)
    seen = batches.for_training(
        opened, options.subset, recipe.image_size, recipe.distorted(), recipe.batch_size, recipe.seed,
        mixing=recipe.mixing()).unbatch()
    return [_trained_tile(opened, one) for one in itertools.islice(seen.as_numpy_iterator(), options.count)]


def _trained_tile(opened: dataset.Records, seen: dict) -> drawings.Tile:
    pixels = (255 * seen['image']).round().astype('uint8')
    lines = [_labelled(opened, seen['label']), _named(seen['filename'])]
    if 'other' in seen:
        lines[0] = f'{100 * seen["share"]:.0f} % {lines[0]}'
        lines.insert(1, f'{100 - 100 * seen["share"]:.0f} % {_labelled(opened, seen["other"])}')
    return drawings.Tile(drawings.small(Image.fromarray(pixels)), tuple(lines))


def _labelled(opened: dataset.Records, label: int) -> str:
    return f'{label} {printable(opened.labels[label])}'


def _named(filename: bytes) -> str:
    return printable(filename.rpartition(b'/')[2])


if __name__ == '__main__':
    sys.exit(main())
