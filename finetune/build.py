"""`finetune build`: folders of pictures -> records."""

import sys
from collections.abc import Sequence
from pathlib import Path

from finetune.building import account, plan
from finetune.building import build as building
from finetune.building import options as building_options
from finetune.console import command
from finetune.console.errors import UsageError
from finetune.console.terminal import printable, show

FLAGS = command.Flags(
    'finetune build --train_directory=PICTURES --output_directory=RECORDS [flags]',
    'Folders of pictures, one a class, become records: TFRecord shards, labels.txt and dataset.json. Every '
    'picture is decoded, turned upright and stored as an RGB JPEG; what cannot be used is listed in skipped.csv. '
    'The pictures themselves are never touched.',
)
building_options.add_flags(FLAGS)
FLAGS.switch('json', False, 'print dataset.json instead of the summary')


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, build, argv)


def build(options) -> None:
    _check_usage(options)
    built = building.build(options)
    if options.json:
        show(account.as_json(built.manifest), end='')
    else:
        account.end_screen(Path(options.output_directory), built.splits, built.told)


def _check_usage(options) -> None:
    if options.arguments:
        raise UsageError(f'{printable(options.arguments[0])}: every argument is a flag here; did you mean '
                         f'--train_directory={printable(options.arguments[0])}?')
    needed = ('tfds', 'tfds_dir') if options.source == 'tfds' else ('train_directory',)
    for name in (*needed, 'output_directory'):
        if not getattr(options, name):
            raise UsageError(f'--{name} is missing (`finetune build --help` shows all flags)')
    for name in _unused_flags(options):
        raise UsageError(f'--{name} has nothing to do with --source={options.source}: leave it out')
    for split in ('validation', 'test'):
        directory, percent = f'{split}_directory', f'{split}_percent'
        if getattr(options, directory) and percent in options.given:
            raise UsageError(f'--{directory} and --{percent} exclude each other: {split} pictures come from a '
                             'directory of their own, or from the training directory')
        if 0 < (value := getattr(options, percent) or 0) < 1:
            raise UsageError(f'--{percent}={value:g} is less than one picture in a hundred; did you mean '
                             f'--{percent}={max(100 * value, 1):g}? (0: none)')


def _unused_flags(options) -> list[str]:
    """What was typed and says nothing about the source that was named."""
    of_others = {'tfds': (*plan.DIRECTORIES, 'labels_file', 'num_threads'),
                 'cifar10': ('labels_file', 'num_threads'), 'mnist_csv': ('num_threads',)}
    unused = of_others.get(options.source, ())
    unused += () if options.source == 'folders' else (*plan.STORED_BY, 'labels_csv')
    unused += () if options.source == 'tfds' else ('tfds', 'tfds_dir', 'tfds_splits')
    return [name for name in unused if name in options.given]


if __name__ == '__main__':
    sys.exit(main())
