"""The line between the machines of a team: the chief's connections to all others, theirs to the chief.

A thread of its own reads it, so that who is gone, or hangs, is known while TensorFlow waits for them; and it ends a
process that waits, which TensorFlow does not let go. What goes over it is JSON and bytes of known meaning, no programs.
"""

import collections
import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from finetune.console.errors import Error, Stopped

HEAD = struct.Struct('>IQ')  # Bytes of the JSON, bytes after it.
LONGEST_JSON = 2**26
SILENCE = 10  # Seconds: as TensorFlow's own heartbeat. A process that dies is known at once, a dead machine after this.
GRACE = 4  # Seconds from bad news to the end of a process whose work does not hear of them.
LONGEST_STEP = 20  # Seconds that a signal waits for the work to come back from TensorFlow.


def frame(kind: str, value=None, payload: bytes = b'') -> bytes:
    text = json.dumps([kind, value]).encode()
    return HEAD.pack(len(text), len(payload)) + text + payload


def frames(buffer: bytearray) -> list[tuple]:
    """Takes the whole frames out of the buffer: (kind, value, payload). Raises ValueError where these are none."""
    found = []
    while len(buffer) >= HEAD.size:
        text_bytes, payload_bytes = HEAD.unpack_from(buffer)
        if text_bytes > LONGEST_JSON:
            raise ValueError
        end = HEAD.size + text_bytes + payload_bytes
        if len(buffer) < end:
            break
        kind, value = json.loads(buffer[HEAD.size:HEAD.size + text_bytes])
        found.append((kind, value, bytes(buffer[HEAD.size + text_bytes:end])))
        del buffer[:end]
    return found


def ended(sentence: str, exit_code: int) -> Error:
    """Another machine's end, which is ours."""
    if exit_code > 128:
        return Stopped(sentence, exit_code - 128)
    error = Error(sentence)
    error.exit_code = exit_code
    return error


class Line:
    """`places` counts the meetings that this machine's work has come to: who is behind is waited for."""

    def __init__(self, index: int, names: Sequence[str], sockets: Mapping[int, socket.socket], timeout_secs: float):
        self.index, self.names, self.timeout_secs = index, names, timeout_secs
        self.asked: int | None = None  # The signal that asked some other machine to stop.
        self.saved: int | None = None  # The step of the newest checkpoint.
        self.trouble: Error | None = None
        self._sockets = dict(sockets)
        self._sending = {other: threading.Lock() for other in sockets}
        self._buffers = {other: bytearray() for other in sockets}
        self._news = threading.Condition()
        self._values = {other: collections.deque() for other in sockets}
        self._heard = dict.fromkeys(sockets, time.monotonic())
        self._work = {}  # Of each machine: (places, seconds since it was last seen to move, whether it waits here).
        self._places, self._waits = 0, False
        self._over = False  # In good order, here or there.
        self._signals: list[tuple[int, float]] = []
        self._main = threading.main_thread().ident
        self._seen, self._moved = None, time.monotonic()
        self._alarm, alarm = socket.socketpair()
        for each in (self._alarm, alarm):
            each.setblocking(False)
        self._former_alarm = signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        self._kept = alarm  # Or it would be closed.
        self._watch = threading.Thread(target=self._watching, daemon=True, name='line')
        self._watch.start()

    # What the work does -----------------------------------------------------------------------------------------------

    def tell(self, kind: str, value=None, payload: bytes = b'') -> None:
        """To the others; one that is gone is the other thread's business."""
        message = frame(kind, value, payload)
        for other in list(self._sockets):
            self._send(other, message)

    def arrive(self) -> int:
        """At the next meeting, whose number it gives."""
        self._places += 1
        self._moved = time.monotonic()
        return self._places

    def next_of(self, other: int) -> tuple:
        """(value, payload) that the other machine says next. Raises what ended the team."""
        with self._news:
            self._waits = True
            try:
                while not self._values[other]:
                    if self.trouble:
                        raise self.trouble
                    self._news.wait(1)
                return self._values[other].popleft()
            finally:
                self._waits = False

    def bad_news(self, seconds: float) -> Error | None:
        """What ended the team, if that is known within so many seconds."""
        with self._news:
            self._news.wait_for(lambda: self.trouble, seconds)
        return self.trouble

    def hang_up(self, kind: str, value=None) -> None:
        """The last words: 'bye' in good order, ('end', [sentence, exit code]) where something went wrong here, 'left'
        where it is known already.
        """
        self._over = True
        for each in self._sockets.values():
            each.settimeout(1)
        self.tell(kind, value)
        self._watch.join(2)
        signal.set_wakeup_fd(self._former_alarm)
        for each in (*self._sockets.values(), self._alarm, self._kept):
            each.close()

    # What the other thread does ---------------------------------------------------------------------------------------

    def _watching(self) -> None:
        with selectors.DefaultSelector() as selector:
            for other, each in self._sockets.items():
                selector.register(each, selectors.EVENT_READ, other)
            selector.register(self._alarm, selectors.EVENT_READ, None)
            beat = 0.0
            while not self._over:
                for key, _ in selector.select(0.2):
                    if key.data is None:
                        self._note_signals()
                    elif not self._read(key.data):
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                self._look_at_the_work(now)
                if now - beat >= 1:
                    beat = now
                    self._send_beat(now)
                    self._look_for_trouble(now)
                self._end_what_waits(now)

    def _send(self, other: int, message: bytes, wait: bool = True) -> None:
        if not self._sending[other].acquire(blocking=wait):
            return  # Something long is being sent, which is a sign of life too.
        try:
            self._sockets[other].sendall(message)
        except OSError:
            pass  # Reading finds it.
        finally:
            self._sending[other].release()

    def _read(self, other: int) -> bool:
        """Takes what came; whether there may be more."""
        try:
            content = self._sockets[other].recv(2**20)
            self._buffers[other] += content
            messages = frames(self._buffers[other])
        except (OSError, ValueError):
            content, messages = b'', []
        self._heard[other] = time.monotonic()
        for kind, value, payload in messages:
            self._take(other, kind, value, payload)
        if not content and not self._over:
            self._set_trouble(f'{self.names[other]} is gone{self._way_out()}', 1)
        return bool(content)

    def _take(self, other: int, kind: str, value, payload: bytes) -> None:
        with self._news:
            if kind == 'value':
                self._values[other].append((value, payload))
            elif kind == 'asked':
                self.asked = self.asked or value
            elif kind == 'saved':
                self.saved = value
            elif kind == 'beat':
                self._work |= {int(index): work for index, work in value.items() if int(index) != self.index}
            elif kind == 'bye':
                self._over = True
            self._news.notify_all()
        if kind == 'end':
            self._set_trouble(*value)

    def _set_trouble(self, sentence: str, exit_code: int) -> None:
        """The first one counts; the chief passes it on."""
        with self._news:
            if self.trouble or self._over:
                return
            self.trouble = ended(sentence, exit_code)
            self._bad_since = time.monotonic()
            self._news.notify_all()
        if self.index == 0:
            message = frame('end', [sentence, exit_code])
            for other in self._sockets:
                self._send(other, message, wait=False)

    def _way_out(self) -> str:
        if self.saved is None:
            return '; start all again: there is no checkpoint yet, so that the same command begins anew'
        return f'; start all again: the same command goes on from step {self.saved}'

    def _send_beat(self, now: float) -> None:
        """Mine; the chief's holds what it knows of everybody."""
        self._work[self.index] = self._places, now - self._moved, self._waits
        known = self._work if self.index == 0 else {self.index: self._work[self.index]}
        message = frame('beat', {str(index): work for index, work in known.items()})
        for other in self._sockets:
            self._send(other, message, wait=False)

    def _look_at_the_work(self, now: float) -> None:
        """Whether it has moved since it was looked at last: it does not where a disk or TensorFlow waits."""
        at = sys._current_frames().get(self._main)
        seen = at and (id(at), at.f_lasti, self._places, self._hundredths_of_cpu())
        if seen != self._seen:
            self._seen, self._moved = seen, now

    def _hundredths_of_cpu(self) -> int:
        """Of the thread that works: it may be seen at the same place each time, and be at work."""
        if not hasattr(time, 'pthread_getcpuclockid'):  # macOS.
            return 0
        return int(100 * time.clock_gettime(time.pthread_getcpuclockid(self._main)))

    def _look_for_trouble(self, now: float) -> None:
        for other, heard in self._heard.items():
            if now - heard > SILENCE and not self._sending[other].locked():
                self._set_trouble(
                    f'{self.names[other]} has not been heard of for {SILENCE} seconds{self._way_out()}', 1)
        furthest = max(places for places, _, _ in self._work.values())
        for index, (places, idle, waits) in self._work.items():
            may_tell = self.index == 0 or index == 0  # Others hear of others from the chief.
            if index != self.index and may_tell and places < furthest and idle > self.timeout_secs and not waits:
                self._set_trouble(f'{self.names[index]} hangs: it has done nothing for {idle:.0f} seconds, '
                                  f'and the others wait for it (--worker_timeout_secs){self._way_out()}', 1)

    def _note_signals(self) -> None:
        try:
            numbers = self._alarm.recv(64)
        except OSError:
            return
        for number in numbers:
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._signals.append((number, time.monotonic()))
                self.tell('asked', number)

    def _end_what_waits(self, now: float) -> None:
        """The work itself ends in time, or it waits in TensorFlow, where it hears of nothing."""
        if self.trouble and now - self._bad_since > GRACE:
            of_kind = '' if isinstance(self.trouble, Stopped) else 'error: '
            self._end(f'{of_kind}{self.trouble}', self.trouble.exit_code)
        stuck = [(number, since) for number, since in self._signals
                 if number != signal.SIGHUP and self._moved < since and not self._waits]
        if stuck and (len(stuck) > 1 or now - stuck[0][1] > LONGEST_STEP):
            self._end(f'stopped while it waited{self._way_out()}', 128 + stuck[0][0])

    def _end(self, sentence: str, exit_code: int) -> None:
        if not self._over:
            self._over = True
            os.write(2, f'{sentence}\n'.encode(errors='replace'))
            os._exit(exit_code)
