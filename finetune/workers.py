"""Spreads work over processes and gives the results back in order, a few at a time."""

import contextlib
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from finetune.errors import Error

IN_FLIGHT = 4  # Jobs a process has at once; what it has done waits in it until we ask, so more take no memory.


def ordered_map(work: Callable, jobs: Iterable, processes: int, modules: Sequence[str] = ()) -> Iterator:
    """work(job) for each job, in the order of the jobs; 1 process means this one.

    Job k goes to process k mod n, each over a pipe of its own: no locks and no threads, memory that does not
    grow with the number of jobs, and a process ends by itself when we end. `work` and the jobs must be small (a
    pipe holds about 200 KiB); the results may be large. `modules` are imported once for all processes.
    """
    if processes == 1:
        yield from map(work, jobs)
        return
    multiprocessing.set_forkserver_preload(list(modules))
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(_started(work)) for _ in range(processes)]
        at_work = deque()
        for pipe, job in zip(itertools.cycle(pipes), jobs, strict=False):
            if len(at_work) == IN_FLIGHT * processes:
                yield _result(at_work.popleft())
            pipe.send(job)
            at_work.append(pipe)
        while at_work:
            yield _result(at_work.popleft())


@contextlib.contextmanager
def _started(work: Callable):
    """Forked from a small clean server and not from us: we may have threads, a lock, TensorFlow."""
    context = multiprocessing.get_context('forkserver')
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _serve(pipe, work: Callable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one decides.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # The first one is gone.
        while True:
            pipe.send(_answer(work, pipe.recv()))


def _answer(work: Callable, job) -> tuple:
    try:
        return work(job), None
    except Exception as error:
        return None, f'{type(error).__name__}: {error}'


def _result(pipe):
    try:
        result, failure = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise Error('a worker process died; most likely the memory did not suffice. Try a smaller '
                    '--num_threads.') from None
    if failure:
        raise RuntimeError(f'in a worker process: {failure}')
    return result
