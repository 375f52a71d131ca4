"""What a person sees: text made safe to print, tables, and progress, live on a terminal and plain lines in a pipe.

Results go to stdout, progress and remarks to stderr; to a program that asks for quiet, nothing goes.
"""

import contextlib
import contextvars
import importlib.util
import os
import re
import shlex
import sys
import time
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta


def printable(text: str | bytes | os.PathLike) -> str:
    """The text on one line, with control, bidirectional and undecodable characters shown as escapes.

    Backslashes are doubled, so that no other text looks the same.
    """
    text = os.fsdecode(text)
    return ''.join(c if _harmless(c) else c.encode('unicode_escape').decode() for c in text)


def shown_by(text: str) -> bytes:
    """The name that `printable` shows so."""
    return os.fsencode(_ESCAPE.sub(lambda escape: escape[0].encode().decode('unicode_escape'), text))


_ESCAPE = re.compile(r'\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])')  # As printable writes them.


def _harmless(character: str) -> bool:
    return character != '\\' and unicodedata.category(character) not in {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}


def some(names: Sequence[str], most: int = 5) -> str:
    """'a, b, c and 7 more'"""
    text = ', '.join(map(printable, names[:most]))
    return text + (f' and {len(names) - most} more' if len(names) > most else '')


def listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'"""
    *others, last = map(printable, names)
    return f'{", ".join(others)} and {last}' if others else last


def count(number: int, thing: str) -> str:
    """'1 picture', '2 pictures', '12,345 pictures'"""
    return f'{number:,} {thing}{"" if number == 1 else "s"}'


_is_quiet = contextvars.ContextVar('is_quiet', default=False)  # Other threads may go on talking.


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """In the block nothing is written to stdout or stderr, but for the answer to a Ctrl-C; warnings become Python's,
    which have filters of their own.
    """
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


def show(*lines: str, end: str = '\n') -> None:
    """Results."""
    if not _is_quiet.get():
        print(*lines, sep='\n', end=end, flush=True)


def say(line: str = '') -> None:
    """A remark to the person at the screen."""
    if not _is_quiet.get():
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    if _is_quiet.get():
        warnings.warn(line, stacklevel=2)
    else:
        say(f'warning: {line}')


def say_next(*words: str) -> None:
    """The next command, ready to paste: quoted for the shell, and not said where a word of it cannot be shown."""
    if can_be_shown(''.join(words)):
        say(f'Next:  {" ".join(map(_quoted, words))}')


def can_be_shown(command: str) -> bool:
    """Whether it is what it looks like, on one line, so that it can be pasted."""
    return all(character == '\\' or _harmless(character) for character in command)


def _quoted(word: str) -> str:
    """For the shell; of --flag=value the value alone."""
    flag, equals, value = word.partition('=')
    return f'{flag}={shlex.quote(value)}' if equals and flag.startswith('--') else shlex.quote(word)


def duration(seconds: float) -> str:
    """9 -> '0:09', 3700 -> '1:01:40'."""
    text = str(timedelta(seconds=round(seconds)))
    return text[2:].lstrip('0').rjust(4, '0') if text.startswith('0:') else text


def table(rows: Sequence[Sequence], header: Sequence[str], title: str = '') -> str:
    """A plain table as text: numbers to the right, everything printable."""
    cells = [[printable(str(cell)) for cell in row] for row in [header, *rows]]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = [title] if title else []
    for row in cells:
        padded = [pad(cell, width, right) for cell, width, right in zip(row, widths, numeric, strict=True)]
        lines.append('  '.join(padded).rstrip())
    return '\n'.join(lines)


def _is_number(cell) -> bool:
    return isinstance(cell, (int, float)) or str(cell).strip('%+-.0123456789') == ''


def columns(text: str) -> int:
    """How many columns of a terminal the text takes: an ideograph takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in 'WF' else 0 if unicodedata.combining(c) else 1 for c in text)


def pad(text: str, width: int, right: bool = False) -> str:
    """The text with spaces to `width` columns, before it if it is to stand on the right."""
    space = ' ' * (width - columns(text))
    return space + text if right else text + space


class Progress:
    """Counts work that takes a while: a live bar on a terminal, one line every `interval_secs` in a pipe.

        with Progress('Reading pictures', total=3670, unit='pictures') as progress:
            for picture in pictures:
                ...
                progress.advance()
    """

    def __init__(self, title: str, total: int, unit: str, interval_secs: float = 10.0):
        self.title, self.total, self.unit, self.interval_secs = title, total, unit, interval_secs
        self.done = 0
        self._bar = None
        self._first = 0

    def __enter__(self) -> 'Progress':
        self._started = self._spoken = time.monotonic()
        if not _is_quiet.get() and (sys.stderr.isatty() or _in_a_notebook()):
            self._bar = _live_bar()
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate='', note='')
        return self

    def start_at(self, done: int) -> None:
        """Work that an earlier run did; it does not count in the rate."""
        self.done = self._first = done

    def advance(self, count: int = 1, note: str = '') -> None:
        self.done += count
        if self._bar:
            self._bar.update(self._task, completed=self.done, rate=self._rate(), note=note)
        elif time.monotonic() - self._spoken >= self.interval_secs:
            self._spoken = time.monotonic()
            say(f'{self.title}: {self.done} of {self.total} {self.unit}, {self._rate()}, {self._left()} left'
                + (f', {note}' if note else ''))

    @property
    def is_live(self) -> bool:
        return self._bar is not None

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def per_second(self) -> float:
        return (self.done - self._first) / max(self.seconds, 1e-9)

    def _rate(self) -> str:
        return f'{self.per_second:.1f} {self.unit}/s'

    def _left(self) -> str:
        known = self.done - self._first > 1  # The first one also waits for what is compiled or started.
        return duration((self.total - self.done) / self.per_second) if known else '?'


def _in_a_notebook() -> bool:
    """Whether Rich can draw there: by ipywidgets, without which it would draw nothing."""
    return 'ipykernel.zmqshell' in sys.modules and importlib.util.find_spec('ipywidgets') is not None


def _live_bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[rate]}'),
        TimeRemainingColumn(), TextColumn('{task.fields[note]}'),
        console=Console(stderr=True), transient=True,
        redirect_stdout=sys.stdout.isatty(),  # Results in a file or a pipe are none of the bar's business.
    )
