"""Spreads work over processes and gives the results back in order, a few at a time."""

import contextlib
import fcntl
import itertools
import multiprocessing
import os
import queue
import resource
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection

from finetune.console.errors import Error

IN_FLIGHT = 64  # Jobs a process has at once, so that it need not wait when we are slow.
PIPE_BYTES = 1 << 20  # For results. Linux lets everyone have some sixty of it; where there are no more, results wait.
MOST_SECONDS = 300  # Of processor time for one job. The slowest picture within the default limits takes some 30.


def ordered_map(
    work: Callable, jobs: Iterable, processes: int, modules: Sequence[str] = (), died: Callable | None = None
) -> Iterator:
    """work(job) for each job, in the order of the jobs; 0 processes means this one.

    Job k goes to process k mod n, over pipes of its own: no locks, memory that does not grow with the number of
    jobs, and a process ends by itself when we end. `work` and the jobs must be small, results may be large.
    `modules` are imported once for all processes.

    A process takes its jobs at once and keeps them, also while its result waits for us: however small the pipes are,
    we never wait for it to take a job while it waits for us to take a result.

    A process that dies is replaced, and the job that it was at is done again. Where that one dies too,
    died(job, exit code) is the result, or raises; the code of a signal is negative.
    """
    if not processes:
        yield from map(work, jobs)
        return
    multiprocessing.set_forkserver_preload(list(modules))
    with contextlib.ExitStack() as stack:
        closed = (contextlib.closing(_Worker(work, died or _is_an_error)) for _ in range(processes))
        crew = [stack.enter_context(worker) for worker in closed]
        at_work: deque[_Worker] = deque()
        for worker, job in zip(itertools.cycle(crew), jobs, strict=False):
            if len(at_work) == IN_FLIGHT * processes:
                yield at_work.popleft().result()
            worker.send(job)
            at_work.append(worker)
        while at_work:
            yield at_work.popleft().result()


def _is_an_error(job, code: int):
    raise Error('a worker process died; most likely the memory did not suffice. Try a smaller --num_threads.')


class _Dead(Exception):
    """The process has ended before its answer."""


class _Worker:
    """A process that does one job after the other, with its two pipes; another takes its place when it dies."""

    def __init__(self, work: Callable, died: Callable):
        self._work, self._died = work, died
        self._unanswered: deque = deque()  # Jobs, in the order in which they were sent.
        self._start()

    def send(self, job) -> None:
        self._unanswered.append(job)
        with contextlib.suppress(OSError):  # It is dead; whoever waits for the result finds out.
            self._send_to.send(job)

    def result(self):
        """Of the job that was sent first, of those without a result."""
        with contextlib.suppress(_Dead):
            return self._received()
        self._replace()
        with contextlib.suppress(_Dead):
            return self._received()
        job = self._unanswered.popleft()
        return self._died(job, self._replace())

    def close(self) -> None:
        self._send_to.close()
        self._receive_from.close()
        self._process.terminate()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context(_start_method())
        (jobs, self._send_to), (self._receive_from, results) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        _enlarge(results)
        self._process = context.Process(target=_serve, args=(jobs, results, self._work, MOST_SECONDS), daemon=True)
        with _without_main():
            self._process.start()
        jobs.close()
        results.close()

    def _received(self):
        """Raises _Dead where the process writes no more (EOFError) or has ended in the middle (OSError)."""
        try:
            result, failure = self._receive_from.recv()
        except (EOFError, OSError):
            raise _Dead from None
        if failure:
            raise RuntimeError(f'in a worker process: {failure}')
        self._unanswered.popleft()
        return result

    def _replace(self) -> int:
        """Starts another process in the place of a dead one, whose exit code is returned."""
        self.close()
        code = self._process.exitcode
        self._start()
        jobs, self._unanswered = self._unanswered, deque()
        for job in jobs:
            self.send(job)
        return code


def _start_method() -> str:
    """Forked from us, which takes no time, only where we are alone; else from a small clean server.

    Another thread may hold a lock in the moment of the fork, and in the child nobody would ever release it.
    """
    alone = threading.active_count() == 1 and 'tensorflow' not in sys.modules
    return 'fork' if alone and sys.platform == 'linux' else 'forkserver'


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A process that is not forked first imports the program that we are in, and so runs again what no guard keeps.

    It needs nothing of it: with an empty program in its place, a guard is nobody's duty.
    """
    main = sys.modules['__main__']
    sys.modules['__main__'] = types.ModuleType('__main__')
    try:
        yield
    finally:
        sys.modules['__main__'] = main


def _enlarge(pipe: Connection) -> None:
    with contextlib.suppress(AttributeError, OSError):  # Not Linux, or the user has many pipes.
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _serve(jobs: Connection, results: Connection, work: Callable, most_seconds: float) -> None:
    _forget_what_a_fork_inherits({jobs.fileno(), results.fileno()})
    for number in (signal.SIGINT, signal.SIGHUP):  # They reach every process; the first one decides.
        signal.signal(number, signal.SIG_IGN)
    _silence_libraries()
    _want_no_more_memory_than_there_is()
    taken: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_take, args=(jobs, taken), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # The first one is gone.
        for arguments in iter(taken.get, None):
            signal.setitimer(signal.ITIMER_PROF, most_seconds)  # Its signal ends us, also inside of a C library.
            results.send(_answer(work, *arguments))


def _take(jobs: Connection, taken: queue.SimpleQueue) -> None:
    """Puts every job into `taken` as soon as it comes, as (job,); None after the last one."""
    try:
        with contextlib.suppress(EOFError):  # The first one has no more, or is gone.
            while True:
                taken.put((jobs.recv(),))
    finally:
        taken.put(None)


def _forget_what_a_fork_inherits(needed: set[int]) -> None:
    """Handlers of signals, locks on files, and the pipes of others, which would outlive the first process in us."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limits = sorted({2, *needed, os.sysconf('SC_OPEN_MAX')})
    for below, above in itertools.pairwise(limits):
        os.closerange(below + 1, above)


def _silence_libraries() -> None:
    """Decoders in C write on stderr what they think of a bad picture; our verdict says it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _want_no_more_memory_than_there_is() -> None:
    """What asks for more gets a MemoryError, which is a verdict on one picture, before the system ends a process."""
    there_is = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):  # Not every system has this limit.
            resource.setrlimit(resource.RLIMIT_AS, (there_is, hard))


def _answer(work: Callable, job) -> tuple:
    try:
        return work(job), None
    except Exception as error:
        return None, f'{type(error).__name__}: {error}'
