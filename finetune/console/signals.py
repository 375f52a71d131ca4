"""What asks a command to stop: Ctrl-C, SIGTERM, and the loss of the terminal; and what there is to do first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from finetune.console import streams
from finetune.console.errors import Stopped


class StopRequest:
    """`number` is the signal that asked to stop, None while nobody has."""

    number: int | None = None

    def lost(self, name: str, error: OSError) -> None:
        """A stream can no longer be written to, which stands for a signal."""
        self.number = self.number or streams.signal_of(error)


@contextlib.contextmanager
def deferred() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and SIGHUP are only noted, for the work to stop at a good place; so is the loss of a stream.

    A second Ctrl-C or SIGTERM acts at once. SIGHUP never does: when a terminal closes, the system and the shell send
    one each.
    """
    request = StopRequest()
    if _is_for_others():
        yield request
        return

    def note(number, frame):
        request.number = request.number or number
        if number == signal.SIGHUP:
            return
        with contextlib.suppress(OSError):  # Past Python's buffer: the signal may have come while that was written.
            os.write(2, b'stopping after this step; once more stops at once, without saving\n')
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, former[each])

    former = {each: signal.signal(each, note) for each in (signal.SIGINT, *_ending())}
    try:
        with streams.losses_told_to(request.lost):
            yield request
    finally:
        _restore(former)


class _Ended(BaseException):
    """As KeyboardInterrupt, no Exception: it may arise anywhere, and is no verdict on what was being done."""


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does: on its way out, everything half made is removed."""
    def end(number, frame):
        for each in former:  # One often comes after the other, and would end the removing.
            signal.signal(each, signal.SIG_IGN)
        raise _Ended(number)

    if _is_for_others():
        yield
        return
    former = {each: signal.signal(each, end) for each in _ending()}
    try:
        yield
    except _Ended as ended:
        number = signal.Signals(ended.args[0])
        raise Stopped(f'stopped by {number.name}', number) from None
    finally:
        _restore(former)


def _is_for_others() -> bool:
    """In a program's other threads Python takes no signals: those are for the program itself."""
    return threading.current_thread() is not threading.main_thread()


def _ending() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored, as nohup has it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]


def _restore(handlers: dict) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)
