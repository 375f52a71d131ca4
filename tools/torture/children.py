"""Functions run in processes of their own, which may crash, hang, or take too much memory."""

import dataclasses
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable

WARM = ['tools.torture.warm']  # Imported once, in the process that all of these are forked from.


@dataclasses.dataclass(frozen=True)
class Ended:
    result: object  # What the function returned; None unless it did.
    trouble: str  # '' where it returned; else how it ended.
    seconds: float = 0.0  # Of the function alone.
    bytes: int = 0  # By which the memory of the process grew.


def run(function: Callable, *arguments, seconds: float = 60.0, memory: int = 0) -> Ended:
    """function(*arguments) in a child that has TensorFlow imported already. `memory` limits its address space."""
    child = start(function, *arguments, memory=memory)
    try:
        return child.ended(seconds)
    finally:
        child.kill()


def start(function: Callable, *arguments, memory: int = 0) -> 'Child':
    return Child(function, arguments, memory)


class Child:
    def __init__(self, function: Callable, arguments: tuple, memory: int):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(WARM)
        self._answer, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(sender, function, arguments, memory))
        self._process.start()
        sender.close()
        self.pid = self._process.pid

    def ended(self, seconds: float) -> Ended:
        if not self._answer.poll(seconds):
            return Ended(None, f'did not end within {seconds:g} s')
        try:
            return self._answer.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            return Ended(None, f'died of {signal.Signals(-code).name}' if code < 0 else f'ended with {code}')

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._answer.close()


def _serve(sender, function: Callable, arguments: tuple, memory: int) -> None:
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    before, started = peak(), time.monotonic()
    try:
        result, trouble = function(*arguments), ''
    except BaseException as error:
        result, trouble = None, f'raised {type(error).__name__}: {error}'
    sender.send(Ended(result, trouble, time.monotonic() - started, peak() - before))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
