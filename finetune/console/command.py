"""A command line: its flags in groups, its help, and the way every command ends."""

import difflib
import inspect
import math
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import NamedTuple

from absl import flags as absl_flags

from finetune.console import streams
from finetune.console.errors import Error, OutputLost, Stopped, UsageError
from finetune.console.terminal import listed, printable

FEW = 5  # Keywords that an error may list.


class Flag(NamedTuple):
    """What help, shells and Python are told of a flag. `takes` is 'switch', 'choice', 'path', or 'value'."""

    name: str
    takes: str
    default: object
    choices: tuple[str, ...]
    help: str


class Flags:
    """The flags of one command and nobody else's, shown in the order and the groups they were added in.

    They are absl flags, so `--name=value`, `--name value`, `--switch`, `--noswitch` and `--switch=true` all work, and a
    misspelled name is answered with the nearest one.
    """

    def __init__(self, usage: str, about: str):
        self.usage = usage
        self.about = about
        self._values = absl_flags.FlagValues()
        self._values.set_gnu_getopt(True)  # Files and flags may stand in any order.
        self._groups: dict[str, list[tuple[str, str, str]]] = {}
        self._group = 'flags'
        self._aliases: dict[str, str] = {}
        self._paths: list[str] = []
        self._one_line_at_a_time = threading.Lock()

    @property
    def command(self) -> str:
        """The first words of the usage: 'finetune train', 'finetune PHOTOS'."""
        return re.split(r'(?<!^finetune) (?=--|\[|[A-Z])', self.usage)[0]

    def group(self, title: str) -> None:
        self._group = title

    def string(self, name: str, default: str | None, help: str) -> None:
        self._add(absl_flags.DEFINE_string, name, default, help)

    def path(self, name: str, default: str | None, help: str) -> None:
        """A string in which a leading ~ is the home directory: bash leaves it as it is after `--flag=`."""
        self.string(name, default, help)
        self._paths.append(name)

    def integer(
        self, name: str, default: int | None, help: str, least: int | None = None, most: int | None = None
    ) -> None:
        self._add(absl_flags.DEFINE_integer, name, default, help, lower_bound=least, upper_bound=most)

    def number(
        self, name: str, default: float | None, help: str, least: float | None = None, most: float | None = None
    ) -> None:
        self._add(absl_flags.DEFINE_float, name, default, help, lower_bound=least, upper_bound=most)
        absl_flags.register_validator(
            name, lambda value: value is None or math.isfinite(value), 'must be a finite number', self._values)

    def switch(self, name: str, default: bool, help: str) -> None:
        def define(name: str, default: bool, help: str, flag_values) -> None:
            flag = absl_flags.Flag(_TrueOrFalse(), None, name, default, help, boolean=True)
            absl_flags.DEFINE_flag(flag, flag_values)

        self._add(define, name, default, help)

    def choice(self, name: str, default: str, choices: Sequence[str], help: str) -> None:
        self._add(absl_flags.DEFINE_enum, name, default, choices, help=f'{" | ".join(choices)}: {help}')

    def leave_out(self, *names: str) -> None:
        """Takes flags back that were added with others: to this command they mean nothing."""
        for name in names:
            delattr(self._values, name)
        self._paths = [name for name in self._paths if name not in names]
        for title, rows in self._groups.items():
            self._groups[title] = [row for row in rows if row[0] not in names]

    def alias(self, alias: str, name: str) -> None:
        """Accepts `--alias` for `--name`: the name that the flag had in the program that this one re-creates."""
        self._aliases[alias] = name

    def parse(self, argv: Sequence[str]) -> SimpleNamespace:
        """The flags' values by name, with `given` (the names that were typed), `arguments` (what is no flag) and `argv`
        (all of it as it was typed).
        """
        with self._one_line_at_a_time:
            return self._parse(argv)

    def take(self, values: Mapping[str, object], *arguments, but: Iterable[str] = ()) -> SimpleNamespace:
        """The same of values by name, as a program has them: they mean, and are judged as, what is typed.

        None is not given; several in a list or tuple are typed with commas between them; a path, a run and records are
        their path. Raises UsageError for a name that is none, or one of `but`.
        """
        keywords = {*self._values, *self._aliases} - {*but}
        for name in values:
            if name not in keywords:
                raise UsageError(self._no_keyword(name, keywords))
        typed = [f'--{name}={_as_typed(value)}' for name, value in values.items() if value is not None]
        named = [_as_typed(argument) for argument in arguments]
        looks_like_a_flag = any(name.startswith('-') for name in named)  # Else as people type, which a report shows.
        return self.parse([*typed, '--', *named] if looks_like_a_flag else [*named, *typed])

    def table(self) -> dict[str, list[Flag]]:
        """The flags by group, in their order."""
        return {title: [self._told(name) for name, _, _ in rows] for title, rows in self._groups.items() if rows}

    def signature(self, but: Iterable[str] = ()) -> list[inspect.Parameter]:
        """The flags as keywords with their defaults."""
        return [inspect.Parameter(flag.name, inspect.Parameter.KEYWORD_ONLY, default=flag.default)
                for flags in self.table().values() for flag in flags if flag.name not in {*but}]

    def _no_keyword(self, name: str, keywords: set[str]) -> str:
        there_are = f'they are the flags of `{self.command} --help`'
        if len(keywords) <= FEW:
            there_are = f'there are {listed(sorted(keywords))}'
        elif name in self._values:
            there_are += f', but for {listed(sorted({*self._values} - keywords))}'
        near = difflib.get_close_matches(name, keywords, n=1)
        return f'{name!r} is no keyword here: {there_are}.' + (f' Did you mean {near[0]}?' if near else '')

    def _told(self, name: str) -> Flag:
        flag = self._values[name]
        choices = tuple(getattr(flag.parser, 'enum_values', ()))
        takes = 'switch' if flag.boolean else 'choice' if choices else 'path' if name in self._paths else 'value'
        return Flag(name, takes, flag.default, choices, flag.help)

    def _parse(self, argv: Sequence[str]) -> SimpleNamespace:
        self._values.unparse_flags()  # Of an earlier command line in this process.
        try:
            arguments = self._values(['', *map(self._without_alias, argv)])[1:]
        except absl_flags.Error as error:
            files = [argument for argument in argv if argument.startswith('-') and os.path.lexists(argument)]
            meant = f'; to name the file, write ./{printable(files[0])}, or -- before it' if files else ''
            raise UsageError(f'{error}{meant} (`{self.command} --help` lists the flags)') from None
        values = {name: self._values[name].value for name in self._values}
        values |= {name: expanded(values[name]) for name in self._paths if values[name]}
        given = {name for name in self._values if self._values[name].present}
        return SimpleNamespace(**values, given=given, arguments=arguments, argv=tuple(argv))

    def help(self) -> str:
        width = min(max(shutil.get_terminal_size().columns, 80), 120)
        lines = [f'usage: {self.usage}', '', *textwrap.wrap(self.about, width)]
        for title, rows in self._groups.items():
            lines += ['', f'{title}:']
            for name, default, text in rows:
                head = f'  --{name}={default}' if default else f'  --{name}'
                wrapped = textwrap.wrap(text, width - 40)
                if len(head) > 38:
                    lines.append(head)
                    head = ''
                lines.append(f'{head:<40}{wrapped[0]}')
                lines += [' ' * 40 + line for line in wrapped[1:]]
        return '\n'.join(lines)

    def _add(self, define: Callable, name: str, default, *arguments, **more) -> None:
        help = more.pop('help', None) or arguments[-1]
        bounds = {key: value for key, value in more.items() if value is not None}
        choices = arguments[:-1] if define is not absl_flags.DEFINE_enum else arguments
        define(name, default, *choices, help=help, flag_values=self._values, **bounds)
        shown = '' if default is None or default is False else str(default).lower() if default is True else str(default)
        self._groups.setdefault(self._group, []).append((name, shown, help))

    def _without_alias(self, argument: str) -> str:
        if not argument.startswith('-'):
            return argument
        name, equals, value = argument.lstrip('-').partition('=')
        return f'--{self._aliases[name]}{equals}{value}' if name in self._aliases else argument


class _TrueOrFalse(absl_flags.BooleanParser):
    def parse(self, argument) -> bool:
        try:
            return super().parse(argument)
        except ValueError:
            raise ValueError('expected true or false') from None


def _as_typed(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ','.join(map(_as_typed, value))
    return os.fsdecode(value) if isinstance(value, (bytes, os.PathLike)) else str(value)


def expanded(path: str) -> str:
    """The path with the home directory in place of a leading ~."""
    return os.path.expanduser(path)  # noqa: PTH111 - that of Path raises where there is no such user.


def run(flags: Flags, work: Callable[[SimpleNamespace], object], argv: Sequence[str] | None) -> int:
    """Parses the command line, does the work, and turns whatever ends it into one sentence and an exit code.

    A number that the work returns is the exit code; all else is for those who call it from Python.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = '--debug' in argv
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '0' if debug else '3')  # TensorFlow's own start-up lines.
    return carry_out(lambda: _work(flags, work, argv), flags.command, debug)


def _work(flags: Flags, work: Callable[[SimpleNamespace], object], argv: list[str]) -> object:
    if {'--help', '-h', '-help', '--helpfull'} & set(argv):
        print(flags.help())
        return 0
    return work(flags.parse([argument for argument in argv if argument != '--debug']))


def carry_out(work: Callable[[], object], command: str, debug: bool = False) -> int:
    """Does the work of a command; whatever ends it becomes one sentence and an exit code, on whatever streams."""
    with streams.guarded() as missing:
        exit_code = _ended(work, command, debug)
        if exit_code == 0 and missing():
            exit_code = _fail(f'a part of the standard output could not be written: {missing()}.', 1, debug)
    return exit_code


def _ended(work: Callable[[], object], command: str, debug: bool) -> int:
    try:
        with streams.losses_told_to(streams.end_the_work):
            done = work()
            sys.stdout.flush()  # Now, when a failure is still an error.
            return done if isinstance(done, int) else 0
    except OutputLost as lost:
        return lost.exit_code
    except Stopped as stopped:  # As it was asked to; that is no error.
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except Error as error:
        return _fail(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail('stopped', 128 + signal.SIGINT, debug)
    except OSError as error:
        what = printable(error.filename) if error.filename else f'`{command}` cannot go on (--debug shows where)'
        return _fail(f'{what}: {error.strerror or error}', 1, debug)
    except Exception as error:
        return _fail(f'{type(error).__name__}: {error} (this should not happen; --debug shows where)', 1, debug)


def _fail(sentence: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f'error: {sentence}', file=sys.stderr)
    return exit_code
