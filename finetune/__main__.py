"""`finetune VERB …`: finds the verb's module and hands it the rest of the command line."""

import importlib
import sys

from finetune.console import command
from finetune.console.errors import UsageError

VERBS = {
    'build': 'pictures in class folders -> records',
    'check': 'records -> findings: duplicates, label errors, odd pictures, shortcuts, what more would bring',
    'train': 'records -> run: a fine-tuned classifier',
    'eval': 'run + records -> precision@1, recall@5, per class, the worst mistakes',
    'compare': 'runs + records -> which is better, by how much, and how sure that is',
    'predict': 'run + pictures -> labels',
    'recipes': 'the named recipes that `finetune train --recipe=NAME` knows',
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else '--help'
    if verb in VERBS:
        return importlib.import_module(f'finetune.{verb}').main(argv[1:])
    return command.carry_out(lambda: _tell(verb), 'finetune')


def _tell(verb: str) -> None:
    if verb not in {'--help', '-h', 'help'}:
        raise UsageError(f'{verb!r} is not a verb of finetune.\n\n{_help()}')
    print(_help())


def _help() -> str:
    rows = '\n'.join(f'  finetune {verb:<10}{what}' for verb, what in VERBS.items())
    return f'usage: finetune VERB [flags]\n\n{rows}\n\n`finetune VERB --help` shows the flags of a verb.'


if __name__ == '__main__':
    raise SystemExit(main())
