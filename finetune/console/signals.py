"""SIGTERM and Ctrl-C while there is something to save first."""

import contextlib
import signal
import sys
from collections.abc import Iterator


class StopRequest:
    """`number` is the signal that asked to stop, None while nobody has."""

    number: int | None = None


@contextlib.contextmanager
def deferred() -> Iterator[StopRequest]:
    """The first SIGTERM or Ctrl-C is only noted, for the work to stop at a good place; a second one acts at once."""
    request = StopRequest()

    def note(number, frame):
        request.number = number
        print('stopping after this step; once more stops at once, without saving', file=sys.stderr)
        for each, handler in former.items():
            signal.signal(each, handler)

    former = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
