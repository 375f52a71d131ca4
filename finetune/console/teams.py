"""Several machines at one training, each started with the same command and its own TF_CONFIG.

The first of them is the chief: it decides and writes, and tells the others. What they do together is a meeting, and
every machine comes to every meeting in the same order. So none stands in what only the chief does.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from finetune.console import line
from finetune.console.errors import Error, UsageError
from finetune.console.line import Line
from finetune.console.terminal import listed, printable, say

SPOKEN_AFTER = 3  # Seconds of waiting.
GREETING = 'finetune team 1'
WAY_OUT = 'Start the same command on every machine, of one installation, on the same records.'


@dataclasses.dataclass(frozen=True)
class Team:
    """Of one machine, every meeting gives back what it is given."""

    index: int = 0
    count: int = 1
    names: tuple[str, ...] = ('the chief',)
    line: Line | None = None

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def part(self, count: int) -> tuple[int, int]:
        """Of `count` things in a row, the first that is this machine's and the one after its last."""
        return self.index * count // self.count, (self.index + 1) * count // self.count

    def told(self, value=None):
        """The chief's value, which JSON can hold."""
        return self._told(value)[0]

    def gathered(self, value) -> list:
        """The value of every machine."""
        if self.count == 1:
            return [value]
        if not self.is_chief:
            self.line.tell('value', [self.line.arrive(), value])
            return self.told()
        number = self.line.arrive()
        values = [value]
        for other in range(1, self.count):
            (theirs, given), _ = self.line.next_of(other)
            assert theirs == number, f'{self.names[other]} came to meeting {theirs}, not {number}'
            values.append(given)
        return self.told(values)

    def met(self) -> None:
        """Nobody goes on before all have come."""
        self.gathered(None)

    def shared(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays; the others give theirs, of the same shapes and types."""
        if self.count == 1:
            return list(arrays)
        payload = b''.join(np.ascontiguousarray(array).tobytes() for array in arrays) if self.is_chief else b''
        _, payload = self._told(None, payload)
        parts = np.cumsum([0, *(array.nbytes for array in arrays)]).tolist()
        assert len(payload) == parts[-1], f'{len(payload)} bytes for {parts[-1]}'
        return [np.frombuffer(payload[first:end], array.dtype).reshape(array.shape)
                for array, first, end in zip(arrays, parts, parts[1:], strict=False)]

    def comes_to_a_step(self) -> None:
        """No meeting of ours: the machines wait for each other inside TensorFlow, where nobody sees who is missing."""
        if self.line:
            self.line.arrive()

    def stopping(self, number: int | None) -> int | None:
        """The signal that asked any machine to stop, told after each step, so that all stop at the same one."""
        if self.line and not self.is_chief and number:
            self.line.tell('asked', number)
        return self.told(number or (self.line and self.line.asked))

    def saved(self, step: int | None) -> None:
        """No meeting: a note of where the same command would go on."""
        if self.line:
            self.line.saved = step
            self.line.tell('saved', step)

    def of_chief_alone(self) -> 'Team':
        """For what the chief does while the others wait at their next meeting."""
        return dataclasses.replace(self, count=1)

    def _told(self, value, payload: bytes = b'') -> tuple:
        if self.count == 1:
            return value, payload
        number = self.line.arrive()
        if self.is_chief:
            if self.line.trouble:
                raise self.line.trouble
            self.line.tell('value', [number, value], payload)
            return value, payload
        (theirs, value), payload = self.line.next_of(0)
        assert theirs == number, f'the chief came to meeting {theirs}, not {number}'
        return value, payload


ALONE = Team()


@dataclasses.dataclass(frozen=True)
class Place:
    """Of this machine in its team, as TF_CONFIG has it."""

    index: int
    addresses: tuple[str, ...]  # host:port, the chief's first.
    names: tuple[str, ...]


def is_asked_for() -> bool:
    return _place() is not None


@contextlib.contextmanager
def assembled(facts: Mapping[str, str], timeout_secs: float) -> Iterator[Team]:
    """The team that TF_CONFIG names, once all have come; without it, or where it names one machine, this one alone.

    `facts` must be the same everywhere. Whatever ends one machine ends all, and each says the same.
    """
    place = _place()
    if place is None:
        yield ALONE
        return
    facts = {'the machines in TF_CONFIG': ', '.join(place.addresses), **facts}
    sockets = (_call if place.index == 0 else _answer)(place, facts, timeout_secs)
    team = Team(place.index, len(place.addresses), place.names, Line(place.index, place.names, sockets, timeout_secs))
    try:
        yield team
    except BaseException as error:
        _end(team, error)
    team.line.hang_up('bye')


def _end(team: Team, error: BaseException) -> None:
    """Raises what ended the work. Where TensorFlow failed, that may be only how it notices that another is gone."""
    by_tensorflow = type(error).__module__.startswith('tensorflow')
    known = team.line.bad_news(line.SILENCE + 2 if by_tensorflow else 0)
    if known:
        team.line.hang_up('left')
        raise known from None
    if by_tensorflow and 'ollective' in str(error):
        first = printable(str(error).partition('\n')[0])[:200]
        error = Error(f'the machines of this training no longer reach each other ({first}). Start all again: the same '
                      'command goes on from the newest checkpoint.')
    sentence = str(error) if isinstance(error, Error) else f'{type(error).__name__}: {error}'
    if isinstance(error, KeyboardInterrupt):
        sentence, code = 'stopped', 130
    else:
        code = getattr(error, 'exit_code', 1)
    team.line.hang_up('end', [f'{team.names[team.index]} ended: {sentence}', code])
    raise error


# TF_CONFIG ----------------------------------------------------------------------------------------------------------


def _place() -> Place | None:
    """None where there is one machine. Raises UsageError."""
    text = os.environ.get('TF_CONFIG')
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster, task = config.get('cluster') or {}, config.get('task') or {}
        jobs = {job: [str(address) for address in addresses] for job, addresses in cluster.items()}
        job, number = task.get('type', 'worker'), int(task.get('index', 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f'TF_CONFIG is not understood ({printable(str(error))}): expected {{"cluster": {{"worker": '
                         '["host:port", …]}, "task": {"type": "worker", "index": 0}}') from None
    if 'ps' in jobs or job == 'ps':
        raise UsageError('TF_CONFIG has a job `ps`, and there are no parameter servers here: every machine is a '
                         '`worker`, which holds all weights.')
    if job == 'evaluator':
        raise UsageError('TF_CONFIG makes this machine an `evaluator`: `finetune eval` (without --run_once) is that, '
                         'and needs no TF_CONFIG.')
    members = [(name, i, address) for name in ('chief', 'worker') for i, address in enumerate(jobs.get(name, ()))]
    if not members:
        return None
    found = [i for i, (name, its, _) in enumerate(members) if (name, its) == (job, number)]
    if not found:
        raise UsageError(f'TF_CONFIG: this machine is {printable(str(job))} {number}, which its cluster does not have: '
                         + ', '.join(f'{name} {i}' for name, i, _ in members))
    addresses = tuple(address for _, _, address in members)
    for address in addresses:
        host, _, port = address.rpartition(':')
        if not (host and port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f'TF_CONFIG: {printable(address)} is no address: expected host:port')
    if len({*addresses}) < len(addresses):
        raise UsageError(f'TF_CONFIG names one address twice: {", ".join(addresses)}')
    if len(addresses) == 1:
        return None
    names = tuple(f'the chief ({address})' if i == 0 else f'worker {its} ({address})'
                  for i, (_, its, address) in enumerate(members))
    return Place(found[0], addresses, names)


# The roll call: before TensorFlow starts, which would wait without a word for who never comes -----------------------


def _call(place: Place, facts: dict, timeout_secs: float) -> dict[int, socket.socket]:
    """The chief's connections to all others. Its listening socket is closed then: TensorFlow's server comes there."""
    there: dict[int, socket.socket] = {}
    theirs: dict[int, dict] = {}
    waiting = _Waiting(timeout_secs)
    with _listening(place.addresses[0]) as server:
        try:
            while missing := [i for i in range(1, len(place.names)) if i not in there]:
                names = listed([place.names[i] for i in missing])
                if waiting.is_worth_saying(names):
                    for each in there.values():
                        with contextlib.suppress(OSError):
                            each.sendall(line.frame('wait', names))
                waiting.check(names)
                server.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    _admit(server.accept()[0], place, there, theirs)
                _forget_those_who_left(there)
            _compare(place, facts, theirs)
        except Error as error:
            for each in there.values():
                with contextlib.suppress(OSError):
                    each.sendall(line.frame('end', [str(error), error.exit_code]))
            raise
    for each in there.values():
        each.sendall(line.frame('go'))
    return there


def _listening(address: str) -> socket.socket:
    host, port = _host_and_port(address)
    own = host in ('localhost', '127.0.0.1')
    both = not own and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(('127.0.0.1' if own else '', port), dualstack_ipv6=both,
                                    family=socket.AF_INET6 if both else socket.AF_INET)
    except OSError as error:
        raise Error(f'{address}, the address of the chief in TF_CONFIG, cannot be listened at ({error.strerror}): '
                    'another process is there, perhaps of a training before. End it, or take another port on all '
                    'machines.') from None


def _admit(connection: socket.socket, place: Place, there: dict, theirs: dict) -> None:
    """Takes a worker in; whoever says something else is none of ours."""
    connection.settimeout(5)
    try:
        kind, value, _ = _received(connection)
        known = kind == 'join' and value['greeting'] == GREETING
        index, facts = int(value['index']), dict(value['facts'])
    except (OSError, ValueError, TypeError, KeyError):
        known = False
    if not known or not 0 <= index < len(place.names):
        connection.close()
        return
    if index in there or index == 0:
        sentence = (f'two processes say that they are {place.names[index]}: each needs an "index" of its own in '
                    'TF_CONFIG.')
        connection.sendall(line.frame('end', [sentence, 2]))
        connection.close()
        raise UsageError(sentence)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    there[index], theirs[index] = connection, facts


def _forget_those_who_left(there: dict) -> None:
    for index, connection in list(there.items()):
        with contextlib.suppress(BlockingIOError):
            if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                connection.close()
                del there[index]


def _compare(place: Place, facts: dict, theirs: dict) -> None:
    """Raises Error with the first thing that is not the same everywhere."""
    for index, other in sorted(theirs.items()):
        for what in facts | other:
            if facts.get(what) != other.get(what):
                raise Error(f'{place.names[index]} differs from the chief in {what}: '
                            f'{_shown(other.get(what))} and not {_shown(facts.get(what))}. {WAY_OUT}')


def _shown(value: str | None) -> str:
    return 'none' if value is None else printable(str(value))[:300]


def _answer(place: Place, facts: dict, timeout_secs: float) -> dict[int, socket.socket]:
    """A worker's connection to the chief, once all others have one too."""
    waiting = _Waiting(timeout_secs)
    while True:
        waiting.is_worth_saying(place.names[0])
        waiting.check(place.names[0])
        with contextlib.suppress(OSError):
            connection = socket.create_connection(_host_and_port(place.addresses[0]), timeout=5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(line.frame('join', {'greeting': GREETING, 'index': place.index, 'facts': facts}))
            if _is_let_in(connection, place, timeout_secs):
                connection.settimeout(None)
                return {0: connection}
        time.sleep(0.5)


def _is_let_in(connection: socket.socket, place: Place, timeout_secs: float) -> bool:
    """False where the other side hung up: the chief may come yet."""
    connection.settimeout(timeout_secs)
    while True:
        try:
            kind, value, _ = _received(connection)
        except TimeoutError:
            raise Error(f'{place.names[0]} has not begun within {timeout_secs:g} seconds '
                        '(--worker_timeout_secs).') from None
        except ValueError:
            raise Error(f'{place.names[0]} is not waiting for its team: something else answers there, perhaps a '
                        'training that is under way. End that on all machines, then start all again.') from None
        except OSError:
            connection.close()
            return False
        if kind == 'wait':
            say(f'Waiting for {value}')
        elif kind == 'end':
            raise line.ended(*value)
        elif kind == 'go':
            return True


def _received(connection: socket.socket) -> tuple:
    """One frame and no byte more: what follows is the line's. Raises OSError, or ValueError if it is none."""
    head = _exactly(connection, line.HEAD.size)
    text_bytes, payload_bytes = line.HEAD.unpack(head)
    if text_bytes > 2**20 or payload_bytes:
        raise ValueError
    [found] = line.frames(bytearray(head + _exactly(connection, text_bytes)))
    return found


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b''
    while len(content) < count:
        more = connection.recv(count - len(content))
        if not more:
            raise ConnectionError
        content += more
    return content


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(':')
    return host.strip('[]'), int(port)


class _Waiting:
    """For whom, how long; said once for the same ones."""

    def __init__(self, timeout_secs: float):
        self._since = time.monotonic()
        self._timeout_secs = timeout_secs
        self._said = ''

    def is_worth_saying(self, names: str) -> bool:
        is_new = names != self._said and time.monotonic() - self._since > SPOKEN_AFTER
        if is_new:
            self._said = names
            say(f'Waiting for {names}')
        return is_new

    def check(self, names: str) -> None:
        if time.monotonic() - self._since > self._timeout_secs:
            raise Error(f'{names} did not come within {self._timeout_secs:g} seconds (--worker_timeout_secs). '
                        'Start the same command there too, or take it out of TF_CONFIG on all machines.')
