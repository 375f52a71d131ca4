"""`finetune VERB …`: finds the verb's module and hands it the rest of the command line."""

import importlib
import sys

VERBS = {
    'build': 'pictures in class folders -> records',
    'train': 'records -> run: a fine-tuned classifier',
    'eval': 'run + records -> precision@1, recall@5, per class, the worst mistakes',
    'predict': 'run + pictures -> labels',
    'recipes': 'the named recipes that `finetune train --recipe=NAME` knows',
}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else '--help'
    if verb in VERBS:
        return importlib.import_module(f'finetune.{verb}').main(argv[1:])
    if verb in {'--help', '-h', 'help'}:
        print(_help())
        return 0
    print(f'error: {verb!r} is not a verb of finetune.\n\n{_help()}', file=sys.stderr)
    return 2


def _help() -> str:
    rows = '\n'.join(f'  finetune {verb:<10}{what}' for verb, what in VERBS.items())
    return f'usage: finetune VERB [flags]\n\n{rows}\n\n`finetune VERB --help` shows the flags of a verb.'


if __name__ == '__main__':
    raise SystemExit(main())
