"""Standard output and error, which any moment may end: the reader goes, the terminal closes, the disk is full."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

from finetune.console.errors import Error, OutputLost

DESCRIPTORS = {'stdin': 0, 'stdout': 1, 'stderr': 2}
SHOWN = 'backslashreplace'  # Where a terminal lacks a character, that must not end the work.
_SIGNALS = {errno.EPIPE: signal.SIGPIPE, errno.EIO: signal.SIGHUP}  # What a system sends to those who let it.


def signal_of(error: OSError) -> signal.Signals | None:
    """The signal that a write failing so stands for: a lost reader or terminal asks to stop, a full disk does not.

    Where SIGHUP is ignored, as under nohup, the loss of the terminal was to be expected.
    """
    number = _SIGNALS.get(error.errno)
    expected = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
    return None if expected else number


def nobody(name: str, error: OSError) -> None:
    """The end of a command must not fail because it cannot be shown."""


def end_the_work(name: str, error: OSError) -> None:
    """Raises what ends a command that has nothing to save; remarks for a full disk are only left out."""
    if threading.current_thread() is not threading.main_thread():
        return  # A live bar is drawn there; the next line of the work itself is told.
    if number := signal_of(error):
        raise OutputLost(number)
    if name == 'stdout':
        raise Error(f'the standard output cannot be written: {error.strerror}.')


_hears: Callable[[str, OSError], None] = nobody


@contextlib.contextmanager
def losses_told_to(hears: Callable[[str, OSError], None]) -> Iterator[None]:
    """In the block, `hears` is called for every write that fails, with the name of the stream."""
    global _hears
    former, _hears = _hears, hears
    try:
        yield
    finally:
        _hears = former


class _Stream(io.FileIO):
    """A standard stream whose writes never fail: what cannot be written is dropped, and told."""

    def __init__(self, name: str, descriptor: int):
        super().__init__(descriptor, 'w', closefd=False)
        self.stream_name, self.failure = name, None

    def write(self, content) -> int:
        try:
            while (written := super().write(content)) is None:  # Another program has told the terminal not to block.
                select.select([], [self], [])
            return written
        except OSError as error:
            self.failure = error
            _hears(self.stream_name, error)
            return len(content)


@contextlib.contextmanager
def guarded() -> Iterator[Callable[[], str]]:
    """In the block, no loss of a standard stream raises OSError; gives what says why output is missing, '' if none is.

    Python itself writes what is buffered at its exit, where a failure would change the exit code to 120: after the
    block nothing is.
    """
    open_missing()
    former = sys.stdout, sys.stderr
    ours = [_guard(name, getattr(sys, name)) for name in ('stdout', 'stderr')]
    sys.stdout, sys.stderr = ours
    try:
        yield lambda: _failure(ours[0])
    finally:
        for stream in ours:
            with contextlib.suppress(OSError, ValueError):  # Another's, full or closed.
                stream.flush()
        sys.stdout, sys.stderr = former


def open_missing() -> None:
    """A stream that is closed, as `2>&-` or a daemon leaves it, becomes /dev/null.

    Else the next file that is opened gets its number, and all that a library writes there.
    """
    for name, descriptor in DESCRIPTORS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'r' if name == 'stdin' else 'w'))  # noqa: PTH123, SIM115


def _guard(name: str, stream):
    """The stream with our writing at the bottom, where it is Python's own; those of notebooks and tests stay."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # One in memory.
        stream.reconfigure(errors=SHOWN)
        return stream
    with contextlib.suppress(OSError):  # Of what was printed before.
        stream.flush()
    at_once = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(name, descriptor)), stream.encoding,
        SHOWN,
        line_buffering=at_once)


def _failure(stream) -> str:
    raw = getattr(getattr(stream, 'buffer', None), 'raw', None)
    return raw.failure.strerror if isinstance(raw, _Stream) and raw.failure else ''


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keeps what is written to file descriptor 2 to itself, unless the block fails.

    TensorFlow's libraries write there before the log level they are given counts, and whatever it is.
    """
    open_missing()
    sys.stderr.flush()
    own = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(own, kept.read())
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)
