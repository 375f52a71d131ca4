"""Work in threads: so much of it at once and no more, and none of it keeps the program from ending."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future


class Busy(Exception):
    """As much is being worked on, or waits, as may be."""


class Threads:
    def __init__(self, count: int, most: int):
        """So many threads; `most` is how much they work on together with what waits."""
        self._most, self._unfinished, self._lock = most, 0, threading.Lock()
        self._waiting = queue.SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def start(self, work: Callable, *arguments) -> Future:
        """What work(*arguments) will return; raises Busy."""
        with self._lock:
            if self._unfinished >= self._most:
                raise Busy
            self._unfinished += 1
        future = Future()
        self._waiting.put((future, work, arguments))
        return future

    def _work(self) -> None:
        while True:
            future, work, arguments = self._waiting.get()
            result, failure = None, None
            if future.set_running_or_notify_cancel():
                try:
                    result = work(*arguments)
                except BaseException as error:
                    failure = error
            with self._lock:  # Before whoever asked hears of it, and asks again.
                self._unfinished -= 1
            if not future.cancelled():
                future.set_exception(failure) if failure else future.set_result(result)
            del future, work, arguments, result, failure  # A picture is not kept until the next one comes.
