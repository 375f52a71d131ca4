"""Work spread over processes comes back in order, and trouble in a process is told."""

import contextlib
import os
import resource
import signal
import time
from pathlib import Path

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


def crash_at_5_and_6(number: int) -> int:
    if number in (5, 6):
        os.kill(os.getpid(), signal.SIGSEGV if number == 5 else signal.SIGABRT)
    return number


def crash_the_first_time_at_7(path: Path) -> str:
    if path.name == '7' and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return path.name


def spin_at_1(number: int) -> int:
    while number == 1:
        pass
    return number


def write_on_stderr(number: int) -> int:
    os.write(2, b'Warning, unknown field with tag 65000')
    return number


def memory_limit(_=None) -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


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


def test_what_a_process_took_with_it_when_it_died_is_done_again():
    results = workers.ordered_map(die_while_answering_1, range(40), 2)
    assert len(next(results)) == 3_000_000
    time.sleep(0.3)
    assert [result[:1] for result in results] == [bytes([number]) for number in range(1, 40)]


@pytest.mark.parametrize('processes', [1, 3])
def test_a_job_that_ends_every_process_costs_no_other_its_result(processes):
    results = workers.ordered_map(crash_at_5_and_6, range(300), processes, died=lambda job, code: (job, code))
    expected = {5: (5, -signal.SIGSEGV), 6: (6, -signal.SIGABRT)}
    assert list(results) == [expected.get(number, number) for number in range(300)]


def test_a_job_that_ended_one_process_has_its_result_from_the_next(tmp_path):
    jobs = [tmp_path / str(number) for number in range(20)]
    assert list(workers.ordered_map(crash_the_first_time_at_7, jobs, 2)) == [path.name for path in jobs]


def test_a_job_without_end_is_ended(monkeypatch):
    """By the processor time that it took: on a machine at work, or from a slow disk, a good picture takes long."""
    monkeypatch.setattr(workers, 'MOST_SECONDS', 0.2)
    results = workers.ordered_map(spin_at_1, range(4), 2, died=lambda job, code: code)
    with at_most(seconds=20):
        assert list(results) == [0, -signal.SIGPROF, 2, 3]


def test_what_libraries_write_about_a_bad_picture_is_not_shown(capfd):
    assert list(workers.ordered_map(write_on_stderr, range(3), 1)) == [0, 1, 2]
    assert capfd.readouterr() == ('', '')


def test_a_process_does_not_ask_for_more_memory_than_the_machine_has():
    limit, = workers.ordered_map(memory_limit, [0], 1)
    assert limit == min(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), memory_limit() % 2**64)
