"""What becomes of a command when its output goes nowhere."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.console import signals, streams

ROOT = Path(__file__).parents[2]
COOK = '''
import os, signal, sys
from finetune.console import command, signals
def work(flags):
    {body}
raise SystemExit(command.run(command.Flags('finetune cook [flags]', 'Cooks.'), work, []))
'''
MANY_LINES = 'for number in range(100_000): print(number)'
A_REMARK = "print('cooking', file=sys.stderr, flush=True); print('soup')"
KEEPS_COOKING = '''
    with signals.deferred() as stop:
        for number in range(LINES):
            print(number, flush=True)
            if stop.number:
                break
    print('saved', number, stop.number, file=sys.stderr)'''


def cook(body: str, redirected: str = '') -> tuple[int, str]:
    """The exit code, and what came on standard error."""
    program = ['bash', '-c', f'"$0" -c "$1" {redirected}; exit ${{PIPESTATUS[0]}}', sys.executable]
    done = subprocess.run([*program, COOK.format(body=body)], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_results_on_a_full_disk_are_one_sentence_and_the_exit_code_of_a_failure():
    """Python would end with 120, and lines about an exception that it ignored."""
    code, told = cook(MANY_LINES, '> /dev/full')
    assert (code, told) == (1, 'error: the standard output cannot be written: No space left on device.\n')


def test_a_program_may_keep_the_results_in_memory_whatever_characters_it_has_for_them():
    kept = io.TextIOWrapper(io.BytesIO(), 'ascii')
    with contextlib.redirect_stdout(kept), streams.guarded():
        print('Blüte', flush=True)
    assert kept.buffer.getvalue() == b'Bl\\xfcte\n'


def test_a_last_line_that_was_only_buffered_counts_too():
    assert cook("print('soup')", '> /dev/full')[0] == 1


def test_a_reader_that_has_seen_enough_ends_the_work_without_a_word():
    assert cook(MANY_LINES, '| head -1 > /dev/null') == (141, '')


@pytest.mark.parametrize('redirected', ['2>&-', '>&-', '<&- >&- 2>&-', '2> /dev/full'])
def test_the_work_is_done_where_nobody_hears_of_it(redirected):
    """Daemons are started so; AttributeError: 'NoneType' object has no attribute 'isatty'."""
    assert cook(A_REMARK, redirected)[0] == 0


def test_what_a_library_writes_to_a_closed_stream_does_not_land_in_the_next_file(tmp_path):
    body = f"file = open({str(tmp_path / 'soup')!r}, 'w'); os.write(2, b'start-up lines'); file.close()"
    assert cook(body, '2>&-')[0] == 0
    assert (tmp_path / 'soup').read_text() == ''


def test_help_that_cannot_be_shown_is_a_failure_without_a_traceback():
    done = subprocess.run(
        ['bash', '-c', '"$0" -m finetune --help > /dev/full', sys.executable], cwd=ROOT, capture_output=True, text=True,
        check=False)
    assert done.returncode == 1 and done.stderr.count('\n') == 1


def test_what_is_worth_saving_stops_at_a_good_place_when_its_reader_is_gone():
    _, told = cook(KEEPS_COOKING.replace('LINES', '10**7'), '| head -1 > /dev/null')
    assert told.startswith('saved') and told.split()[2] == str(int(signal.SIGPIPE))


def test_what_is_worth_saving_goes_on_where_its_log_is_on_a_full_disk_and_fails_in_the_end():
    code, told = cook(KEEPS_COOKING.replace('LINES', '1000'), '> /dev/full')
    assert code == 1 and told.startswith('saved 999 None\nerror: a part of the standard output could not be written')


def test_a_terminal_that_does_not_block_is_waited_for():
    """Another program on the same terminal may leave it so; BlockingIOError in the middle of a training."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = [sys.executable, '-c', COOK.format(body=MANY_LINES)]
    with subprocess.Popen(program, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        with os.fdopen(reader) as lines:
            assert len(lines.readlines()) == 100_000
        assert (process.wait(), process.stderr.read()) == (0, '')


@pytest.fixture
def handlers():
    """Those of the tests themselves, put back."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield former
    for number, handler in former.items():
        signal.signal(number, handler)


def test_a_terminal_that_closes_asks_to_stop_and_asking_twice_kills_nobody(handlers):
    """The system and the shell send one SIGHUP each."""
    with signals.deferred() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_who_ignores_the_end_of_the_terminal_goes_on(handlers):
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.deferred() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        stop.lost('stdout', OSError(5, 'Input/output error'))
    assert stop.number is None


def test_a_second_ctrl_c_acts_at_once(handlers):
    with pytest.raises(KeyboardInterrupt), signals.deferred() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
