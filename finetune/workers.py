"""Spreads work over processes and gives the results back in order, a few at a time."""

import contextlib
import fcntl
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection

from finetune.errors import Error

IN_FLIGHT = 8  # Jobs a process has at once, so that it need not wait when we are slow.
PIPE_BYTES = 1 << 20  # What Linux lets everyone have. Jobs in flight must fit; results only wait longer.


def ordered_map(work: Callable, jobs: Iterable, processes: int, modules: Sequence[str] = ()) -> Iterator:
    """work(job) for each job, in the order of the jobs; 1 process means this one.

    Job k goes to process k mod n, over pipes of its own: no locks, no threads, memory that does not grow with the
    number of jobs, and a process ends by itself when we end. `work` and the jobs must be small, results may be
    large. `modules` are imported once for all processes.
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
            send_to.send(job)
            at_work.append(receive_from)
        while at_work:
            yield _result(at_work.popleft())


@contextlib.contextmanager
def _started(work: Callable) -> Iterator[tuple[Connection, Connection]]:
    """Forked from a small clean server and not from us: we may have threads, a lock, TensorFlow."""
    context = multiprocessing.get_context('forkserver')
    (jobs, send_to), (receive_from, results) = _pipe(context), _pipe(context)
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


def _pipe(context) -> tuple[Connection, Connection]:
    """(reading end, writing end)"""
    reader, writer = context.Pipe(duplex=False)
    with contextlib.suppress(AttributeError, OSError):  # Not Linux, or the user has many pipes.
        fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def _serve(jobs: Connection, results: Connection, work: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides.
    with contextlib.suppress(EOFError, BrokenPipeError):  # The first one is gone.
        while True:
            results.send(_answer(work, jobs.recv()))


def _answer(work: Callable, job) -> tuple:
    try:
        return work(job), None
    except Exception as error:
        return None, f'{type(error).__name__}: {error}'


def _result(receive_from: Connection):
    try:
        result, failure = receive_from.recv()
    except EOFError:
        raise Error('a worker process died; most likely the memory did not suffice. Try a smaller '
                    '--num_threads.') from None
    if failure:
        raise RuntimeError(f'in a worker process: {failure}')
    return result
