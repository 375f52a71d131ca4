"""Spreads work over processes and gives the results back in order, a few at a time."""

import contextlib
import fcntl
import itertools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection

from finetune.console.errors import Error

IN_FLIGHT = 8  # Jobs a process has at once, so that it need not wait when we are slow.
PIPE_BYTES = 1 << 20  # For results. Linux lets everyone have some sixty of it; where there are no more, results wait.


def ordered_map(work: Callable, jobs: Iterable, processes: int, modules: Sequence[str] = ()) -> Iterator:
    """work(job) for each job, in the order of the jobs; 1 process means this one.

    Job k goes to process k mod n, over pipes of its own: no locks, memory that does not grow with the number of
    jobs, and a process ends by itself when we end. `work` and the jobs must be small, results may be large.
    `modules` are imported once for all processes.

    A process takes its jobs at once and keeps them, also while its result waits for us: however small the pipes are,
    we never wait for it to take a job while it waits for us to take a result.
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    multiprocessing.set_forkserver_preload(list(modules))
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(_started(work)) for _ in range(processes)]
        at_work: deque[Connection] = deque()
        for (send_to, receive_from), job in zip(itertools.cycle(pipes), jobs, strict=False):
            if len(at_work) == IN_FLIGHT * processes:
                yield _result(at_work.popleft())
            _send(send_to, job)
            at_work.append(receive_from)
        while at_work:
            yield _result(at_work.popleft())


@contextlib.contextmanager
def _started(work: Callable) -> Iterator[tuple[Connection, Connection]]:
    context = multiprocessing.get_context(_start_method())
    (jobs, send_to), (receive_from, results) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    _enlarge(results)
    process = context.Process(target=_serve, args=(jobs, results, work), daemon=True)
    process.start()
    jobs.close()
    results.close()
    try:
        yield send_to, receive_from
    finally:
        send_to.close()
        receive_from.close()
        process.terminate()
        process.join()


def _start_method() -> str:
    """Forked from us, which takes no time, only where we are alone; else from a small clean server.

    Another thread may hold a lock in the moment of the fork, and in the child nobody would ever release it.
    """
    alone = threading.active_count() == 1 and 'tensorflow' not in sys.modules
    return 'fork' if alone and sys.platform == 'linux' else 'forkserver'


def _enlarge(pipe: Connection) -> None:
    with contextlib.suppress(AttributeError, OSError):  # Not Linux, or the user has many pipes.
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _serve(jobs: Connection, results: Connection, work: Callable) -> None:
    _forget_what_a_fork_inherits({jobs.fileno(), results.fileno()})
    for number in (signal.SIGINT, signal.SIGHUP):  # They reach every process; the first one decides.
        signal.signal(number, signal.SIG_IGN)
    taken: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_take, args=(jobs, taken), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # The first one is gone.
        for arguments in iter(taken.get, None):
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


def _answer(work: Callable, job) -> tuple:
    try:
        return work(job), None
    except Exception as error:
        return None, f'{type(error).__name__}: {error}'


def _send(send_to: Connection, job) -> None:
    with _told_when_dead():
        send_to.send(job)


def _result(receive_from: Connection):
    with _told_when_dead():
        result, failure = receive_from.recv()
    if failure:
        raise RuntimeError(f'in a worker process: {failure}')
    return result


@contextlib.contextmanager
def _told_when_dead() -> Iterator[None]:
    """A dead process reads no more (BrokenPipeError), writes no more (EOFError), or ended in the middle (OSError)."""
    try:
        yield
    except (EOFError, OSError):
        raise Error('a worker process died; most likely the memory did not suffice. Try a smaller '
                    '--num_threads.') from None
