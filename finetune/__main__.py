"""`finetune VERB …`, or `finetune PHOTOS`: finds the module and hands it the command line."""

import difflib
import importlib
import os
import sys

from finetune.console import command, completion
from finetune.console.errors import UsageError
from finetune.console.terminal import printable, show

VERBS = {
    'build': 'pictures in class folders -> records',
    'check': 'pictures or records -> findings: copies, label errors, odd pictures, shortcuts, what more would bring',
    'train': 'records -> run: a fine-tuned classifier',
    'eval': 'run + records -> precision@1, recall@5, per class, the worst mistakes',
    'compare': 'runs + records -> which is better, by how much, and how sure that is',
    'predict': 'run + pictures -> labels',
    'serve': 'run or export -> a page and an API on this machine that answer pictures',
    'export': 'run -> files for other programs, each proven to answer as the run does',
    'recipes': 'the named recipes that `finetune train --recipe=NAME` knows',
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    first = argv[0] if argv else '--help'
    if first in VERBS:
        return importlib.import_module(f'finetune.{first}').main(argv[1:])
    if first.partition('=')[0] == '--completion':
        shell = first.partition('=')[2] or ''.join(argv[1:2])
        return command.carry_out(lambda: show(completion.script(shell, VERBS, _flags()), end=''), 'finetune')
    if first in {'--help', '-h', 'help'} or not _names_photos(first):
        return command.carry_out(lambda: _tell(first), 'finetune')
    return importlib.import_module('finetune.project').main(argv)


def _names_photos(argument: str) -> bool:
    """A flag, a path that is there, or one that cannot be a verb: the front door says what is wrong with it."""
    path = command.expanded(argument)
    return argument.startswith('-') or os.path.lexists(path) or os.sep in argument or '.' in argument


def _flags() -> dict[str, command.Flags]:
    """Of every verb, and under '' of `finetune PHOTOS`."""
    return {verb: importlib.import_module(f'finetune.{verb or "project"}').FLAGS for verb in (*VERBS, '')}


def _tell(argument: str) -> None:
    if argument in {'--help', '-h', 'help'}:
        show(_help())
        return
    near = difflib.get_close_matches(argument, VERBS, n=1)
    raise UsageError(f'{printable(argument)!r} is no verb of finetune and no folder that is there.'
                     + (f' Did you mean {near[0]}?' if near else '') + f'\n\n{_help()}')


def _help() -> str:
    rows = '\n'.join(f'  finetune {verb:<10}{what}' for verb, what in VERBS.items())
    return ('usage: finetune PHOTOS [flags]\n       finetune VERB [flags]\n\n'
            f'  finetune {"PHOTOS":<10}a folder of pictures, one folder a class -> a model, how far to trust it, a '
            f'report\n\nor one step of that:\n\n{rows}\n\n`finetune PHOTOS --help` and `finetune VERB --help` show '
            'the flags;\n`finetune --completion=bash|zsh|fish` prints what completes them in a shell.')


if __name__ == '__main__':
    raise SystemExit(main())
