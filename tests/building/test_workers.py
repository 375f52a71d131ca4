"""Work spread over processes comes back in order, and trouble in a process is told."""

import contextlib
import os
import signal
import time

import pytest

from finetune.building import workers
from finetune.console.errors import Error


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.02 * (number % 3))
    return number * number, os.getpid()


def fail_at_5(number: int) -> int:
    if number == 5:
        raise ZeroDivisionError('five')
    return number


def die_at_5(number: int) -> int:
    if number == 5:
        os._exit(9)  # As the system ends a process that takes too much memory.
    return number


def die_while_answering_1(number: int) -> bytes:
    if number == 1:
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # Ends the process while it waits for a reader.
    return large(number)


def large(number: int) -> bytes:
    return bytes([number]) * 3_000_000


def many_fold(job: bytes) -> bytes:
    return job * 10


@contextlib.contextmanager
def at_most(seconds: float):
    """Ends what would wait for ever."""
    def stop(number, frame):
        raise TimeoutError(f'still waiting after {seconds} s')

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize('processes', [1, 3])
def test_results_come_in_the_order_of_the_jobs(processes):
    results = list(workers.ordered_map(slow_square, range(40), processes))
    assert [square for square, _ in results] == [number * number for number in range(40)]
    assert len({process for _, process in results}) == processes


def test_jobs_are_taken_only_as_fast_as_results_are_asked_for():
    """Memory would grow with the number of pictures otherwise."""
    jobs = iter(range(10_000))
    results = workers.ordered_map(slow_square, jobs, 2)
    next(results)
    assert next(jobs) <= 2 * workers.IN_FLIGHT + 1
    results.close()


def test_large_jobs_and_results_do_not_wait_for_each_other():
    names = [bytes(4096 * 8)] * 40  # Eight of the longest paths a job can hold.
    assert list(workers.ordered_map(len, names, 2)) == [4096 * 8] * 40
    assert [len(result) for result in workers.ordered_map(large, range(30), 2)] == [3_000_000] * 30


def test_pipes_too_small_for_the_jobs_in_flight_stop_nobody(monkeypatch):
    """Linux gives a user 64 MiB of pipes: with 40 processes, most have pipes of 8 KiB."""
    monkeypatch.setattr(workers, 'PIPE_BYTES', 4096)
    jobs = [bytes([number]) * 100_000 for number in range(40)]
    with at_most(seconds=20):
        assert list(workers.ordered_map(many_fold, jobs, 2)) == [job * 10 for job in jobs]


def test_a_fault_in_a_process_is_told_and_not_waited_for():
    with pytest.raises(RuntimeError, match='ZeroDivisionError: five'):
        list(workers.ordered_map(fail_at_5, range(10), 2))


def test_a_process_that_dies_is_told_and_not_waited_for():
    with pytest.raises(Error, match='a worker process died'):
        list(workers.ordered_map(die_at_5, range(1000), 2))


def test_a_process_that_dies_is_told_when_the_next_job_goes_to_it():
    """A broken pipe of ours would be taken for a reader, say `head`, that has seen enough of the output."""
    results = workers.ordered_map(die_at_5, range(1000), 2)
    assert next(results) == 0
    time.sleep(0.2)  # It has died before it is given another job.
    with pytest.raises(Error, match='a worker process died'):
        list(results)


def test_a_process_that_dies_while_it_answers_is_told():
    results = workers.ordered_map(die_while_answering_1, range(1000), 2)
    assert len(next(results)) == 3_000_000
    time.sleep(0.3)
    with pytest.raises(Error, match='a worker process died'):
        list(results)
