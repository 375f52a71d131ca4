"""Machines that are one team, played by processes without TensorFlow: who is named, who is told, and that all end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.console import teams
from finetune.console.errors import UsageError

SCRIPT = '''
import json, signal, sys, time
import numpy as np
from finetune.console import command, signals, teams

facts, timeout_secs, work = json.loads(sys.argv[1]), float(sys.argv[2]), sys.argv[3]

def main():
    with teams.assembled(facts, timeout_secs) as team:
        exec(work)

raise SystemExit(command.carry_out(main, 'finetune train'))
'''
HOME = Path(__file__).parents[2]


def addresses(count: int) -> list[str]:
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    found = [f'127.0.0.1:{each.getsockname()[1]}' for each in sockets]
    for each in sockets:
        each.close()
    return found


@pytest.fixture
def start():
    """(cluster, index, work, …) -> a process of the team; all are ended with the test."""
    started = []

    def start(cluster: list[str], index: int, work: str, timeout_secs: float = 30, **facts: str):
        config = {'cluster': {'worker': cluster}, 'task': {'type': 'worker', 'index': index}}
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, json.dumps(facts), str(timeout_secs), work], text=True, cwd=HOME,
            env=os.environ | {'TF_CONFIG': json.dumps(config)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()
        each.communicate()


def ends(process, seconds: float = 20) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_a_machine_alone_is_a_team_whose_meetings_give_back_what_they_are_given(monkeypatch):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    with teams.assembled({}, 1) as team:
        assert team.is_chief and team.part(7) == (0, 7)
        assert (team.told('a'), team.gathered(3), team.stopping(15), team.stopping(None)) == ('a', [3], 15, None)


def test_the_parts_of_all_are_the_whole():
    for count, machines in ((500, 3), (2, 4), (0, 2)):
        parts = [teams.Team(index, machines).part(count) for index in range(machines)]
        assert [number for first, end in parts for number in range(first, end)] == list(range(count))


def test_all_are_told_the_same_and_stop_for_the_same_signal(start):
    """Without a signal of their own too."""
    work = ('arrays = [np.arange(5, dtype=np.uint32) * 2**31 * (team.index == 0), np.full((2, 2), 0.5 - team.index)]\n'
            'shared = [a.tolist() for a in team.shared(arrays)]\n'
            'print(json.dumps([team.told({"a": team.index}), team.gathered(team.index), shared,'
            ' team.stopping(15 if team.index == 2 else None) or team.told(team.line.asked)]))')
    cluster = addresses(3)
    found = [ends(each) for each in [start(cluster, index, work) for index in (2, 0, 1)]]
    assert [(code, err) for code, _, err in found] == [(0, '')] * 3
    assert len({out for _, out, _ in found}) == 1
    [told, gathered, shared, _] = json.loads(found[0][1])
    assert told == {'a': 0} and gathered == [0, 1, 2]
    assert shared[0] == [0, 2**31, 0, 2**31, 0] and shared[1] == [[0.5, 0.5], [0.5, 0.5]]


def test_what_differs_between_machines_is_one_sentence_on_each(start):
    cluster = addresses(2)
    processes = [start(cluster, index, 'pass', flags=f'--batch_size={32 + index}') for index in (0, 1)]
    found = [ends(each) for each in processes]
    for code, _, err in found:
        assert code == 1 and err.count('\n') == 1
        assert f'worker 1 ({cluster[1]}) differs from the chief in flags: --batch_size=33' in err


def test_two_processes_that_say_they_are_the_same_machine_are_told(start):
    cluster = addresses(3)
    for code, _, err in [ends(each) for each in [start(cluster, index, 'pass') for index in (0, 1, 1)]]:
        assert code == 2 and 'two processes say that they are worker 1' in err


@pytest.mark.slow
@pytest.mark.parametrize(('index', 'missing'), [(0, 'worker 1'), (1, 'the chief')])
def test_who_never_comes_is_named_while_and_when_all_have_waited(start, index, missing):
    cluster = addresses(2)
    code, _, err = ends(start(cluster, index, 'pass', timeout_secs=4))
    waiting, error = err.splitlines()
    assert code == 1 and waiting == f'Waiting for {missing} ({cluster[1 - index]})'
    assert error.startswith(f'error: {missing} ({cluster[1 - index]}) did not come within 4 seconds')


def test_a_machine_that_waits_can_be_ended(start):
    waiting = start(addresses(2), 0, 'pass')
    time.sleep(1)
    waiting.terminate()
    assert ends(waiting, 3)[0] == -signal.SIGTERM


def test_a_chief_whose_address_is_taken_says_so(start):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        cluster = [f'127.0.0.1:{taken.getsockname()[1]}', *addresses(1)]
        code, _, err = ends(start(cluster, 0, 'pass'))
    assert code == 1 and f'{cluster[0]}, the address of the chief in TF_CONFIG, cannot be listened at' in err


def test_strangers_who_knock_are_not_let_in(start):
    cluster = addresses(2)
    chief = start(cluster, 0, 'print(team.gathered(team.index))')
    host, port = cluster[0].split(':')
    for knock in (b'GET / HTTP/1.1\r\n\r\n', b''):
        for _ in range(50):
            try:
                with socket.create_connection((host, int(port))) as stranger:
                    stranger.sendall(knock)
                break
            except OSError:
                time.sleep(0.1)
    worker = start(cluster, 1, 'print(team.gathered(team.index))')
    assert [ends(each) for each in (chief, worker)] == [(0, '[0, 1]\n', '')] * 2


# What TensorFlow does, a long sleep does too: nothing in Python moves.
STUCK = 'team.saved(26) if team.is_chief else None\nteam.met()\nprint("there", flush=True)\n'


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 2])
def test_one_that_is_killed_ends_the_others_which_name_it_and_the_step(start, victim):
    """They wait in TensorFlow, which does not let them go."""
    cluster = addresses(3)
    processes = [start(cluster, index, f'{STUCK}time.sleep(60)') for index in range(3)]
    for each in processes:
        assert each.stdout.readline() == 'there\n'
    killed = time.monotonic()
    processes[victim].kill()
    name = f'the chief ({cluster[0]})' if victim == 0 else f'worker {victim} ({cluster[victim]})'
    for index in {0, 1, 2} - {victim}:
        code, _, err = ends(processes[index])
        assert code == 1
        assert err == f'error: {name} is gone; start all again: the same command goes on from step 26\n'
    assert time.monotonic() - killed < 10


@pytest.mark.slow
@pytest.mark.parametrize('stuck', [0, 1])
def test_one_that_hangs_is_named_after_the_time_out(start, stuck):
    cluster = addresses(2)
    work = f'{STUCK}time.sleep(60) if team.index == {stuck} else (team.comes_to_a_step(), time.sleep(60))'
    processes = [start(cluster, index, work, timeout_secs=2) for index in range(2)]
    name = f'the chief ({cluster[0]})' if stuck == 0 else f'worker 1 ({cluster[1]})'
    code, _, err = ends(processes[1 - stuck])
    assert code == 1 and f'error: {name} hangs: it has done nothing for ' in err and 'from step 26' in err
    assert ends(processes[stuck])[0] == 1


@pytest.mark.slow
def test_one_that_works_long_does_not_hang(start):
    cluster = addresses(2)
    work = (f'{STUCK}end = time.monotonic() + 4\nwhile team.is_chief and time.monotonic() < end: sum(range(999))\n'
            'team.met()')
    assert [ends(each)[0] for each in [start(cluster, index, work, timeout_secs=2) for index in range(2)]] == [0, 0]


def test_the_error_of_one_is_the_sentence_and_the_exit_code_of_all(start):
    cluster = addresses(3)
    work = ('from finetune.console.errors import Diverged\n'
            'if team.index == 1: raise Diverged("the loss is not finite")\n'
            'team.met()')
    found = [ends(each) for each in [start(cluster, index, work) for index in range(3)]]
    assert [code for code, _, _ in found] == [3, 3, 3]
    assert found[1][2] == 'error: the loss is not finite\n'
    for index in (0, 2):
        assert found[index][2] == f'error: worker 1 ({cluster[1]}) ended: the loss is not finite\n'


@pytest.mark.slow
def test_a_second_ctrl_c_ends_one_that_waits_in_tensorflow(start):
    """There Python's handlers do not run: a mutex that is never released stands in for it."""
    cluster = addresses(2)
    work = (f'{STUCK}import ctypes\nlibc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)\n'
            'libc.pthread_mutex_lock(lock)\n'
            'with signals.deferred(): libc.pthread_mutex_lock(lock)')
    processes = [start(cluster, index, work) for index in range(2)]
    for each in processes:
        each.stdout.readline()
    time.sleep(1)
    assert processes[1].poll() is None
    for _ in range(2):
        processes[1].send_signal(signal.SIGINT)
        time.sleep(0.5)
    code, _, err = ends(processes[1], 5)
    assert code == 130 and 'stopped while it waited; start all again: the same command goes on from step 26' in err
    code, _, err = ends(processes[0], 12)
    assert code == 1 and 'worker 1' in err and 'is gone' in err


@pytest.mark.parametrize(('config', 'said'), [
    ('{', 'not understood'), ('[]', 'not understood'), ('{"cluster": {"worker": 3}}', 'not understood'),
    ('{"cluster": {"ps": ["a:1"], "worker": ["a:2", "a:3"]}}', 'parameter servers'),
    ('{"cluster": {"worker": ["a:2", "a:3"]}, "task": {"type": "evaluator"}}', 'finetune eval'),
    ('{"cluster": {"worker": ["a:2", "a:3"]}, "task": {"index": 2}}', 'does not have'),
    ('{"cluster": {"worker": ["a:2", "a"]}}', 'host:port'), ('{"cluster": {"worker": ["a:2", "a:2"]}}', 'twice'),
])
def test_a_configuration_that_cannot_be_meant_is_one_sentence(config, said, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', config)
    with pytest.raises(UsageError, match=said), teams.assembled({}, 1):
        pass


@pytest.mark.parametrize('config', ['', '{}', '{"cluster": {}}', '{"cluster": {"chief": ["a:1"]}, '
                                    '"task": {"type": "chief", "index": 0}}'])
def test_one_machine_is_no_team(config, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', config)
    assert not teams.is_asked_for()
