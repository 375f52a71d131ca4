"""`finetune recipes`: what `finetune train --recipe=NAME` knows."""

import json
import sys
from collections.abc import Sequence

from finetune.console import command
from finetune.console.errors import UsageError
from finetune.console.terminal import printable, show, table
from finetune.runs import catalogue

QUOTE = '"'
FLAGS = command.Flags(
    'finetune recipes [NAME]', 'Lists the named recipes, or tells all about one: where it comes from, its flags.')


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, recipes, argv)


def recipes(options) -> None:
    if len(options.arguments) > 1:
        raise UsageError(f'{printable(options.arguments[1])!r} is one name too many: `finetune recipes NAME` tells '
                         'about one recipe')
    show(_one(options.arguments[0]) if options.arguments else _all())


def _all() -> str:
    found = [catalogue.find(name) for name in catalogue.names()]
    rows = [(named.name, named.published, named.here, named.time) for named in found]
    return table(rows, ('--recipe', 'published precision@1', 'here', 'time'))


def _one(name: str) -> str:
    named = catalogue.find(name)
    facts = {'source': named.source, 'published': named.published, 'here': named.here, 'time': named.time}
    return '\n'.join((
        f'{named.name}: {named.about}', '',
        *(f'{title:<11}{text}' for title, text in facts.items()),
        *(f'{"note":<11}{note}' for note in named.notes), '',
        *(f'--{flag}={json.dumps(value).strip(QUOTE)}' for flag, value in named.flags.items()),
    ))


if __name__ == '__main__':
    sys.exit(main())
