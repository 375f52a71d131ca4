"""Connections, and the server that holds them: so many, each with its deadlines, and every error as JSON.

uvicorn gives a request no time limit before its headers are there, knows no cap that closes what stalls, and answers
what it cannot read in plain text: these are here.
"""

import asyncio
import contextlib
import functools
import signal
import socket
import sys
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from finetune.serving.guards import HEADERS, HEADERS_TOO_LARGE, NOT_HTTP, TOO_MANY, TOO_SLOW, Limits, Refused

GRACE_SECONDS = 0.3  # For answers that are being given when the server is asked to stop.
BACKLOG = 128
DRAINED = 64 << 20  # Bytes of a refused body that are read, so that the client gets to read why.


class Connection(H11Protocol):
    def __init__(self, *arguments, limits: Limits, **more):
        super().__init__(*arguments, **more)
        self._limits, self._deadline, self._drained = limits, None, 0
        self.waiting_since = self.loop.time()  # For what is to come next.

    @property
    def is_answering(self) -> bool:
        """A request is whole and its answer is not."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        # The second part of an answer would wait 40 ms for the first; asyncio sees to that for listeners of its own.
        transport.get_extra_info('socket').setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._give(self._limits.header_seconds)
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def _make_room(self) -> None:
        """The one that has stalled longest goes; where none has, this one."""
        stalled = [each for each in self.connections if not each.is_answering and each is not self]
        if stalled:
            longest = min(stalled, key=lambda each: each.waiting_since)
            self.connections.discard(longest)
            longest.transport.abort()
        else:
            self._refuse(TOO_MANY)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None:  # The first byte of another request.
            self._give(self._limits.header_seconds)
        had_answered = self.cycle is not None and self.cycle.response_complete
        former = self.cycle
        super().data_received(data)
        if self.cycle is not former:
            self._give(self._limits.request_seconds)
        elif had_answered and self.conn.their_state is h11.SEND_BODY:
            self._drained += len(data)
            if self._drained > DRAINED:
                self.transport.abort()

    def on_response_complete(self) -> None:
        answered = self.cycle
        self._stop_clock()
        if self.conn.their_state is h11.SEND_BODY:
            self._give(self._limits.drain_seconds)
        super().on_response_complete()
        if self.cycle is not answered:  # One that had come behind the other.
            self._give(self._limits.request_seconds)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(error)

    def send_400_response(self, message: str) -> None:
        """Called where the error is being handled."""
        hint = getattr(sys.exception(), 'error_status_hint', 400)
        self._refuse(HEADERS_TOO_LARGE if hint == 431 else NOT_HTTP)

    def _give(self, seconds: float) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(seconds, self._end)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.waiting_since = self.loop.time()

    def _end(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(TOO_SLOW)
        else:
            self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        """What is wrong before there is a request; where an answer has begun, there is only the end."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = {'content-type': 'application/json', 'content-length': str(len(refused.body)), **HEADERS,
                       **refused.headers}
            response = h11.Response(status_code=refused.status, headers=list(headers.items()))
            for event in (response, h11.Data(data=refused.body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()


class _Server(uvicorn.Server):
    def capture_signals(self):
        return contextlib.nullcontext()  # The loop hears them, below.


def listening(host: str, port: int) -> socket.socket:
    """Raises OSError where that cannot be, as the port is taken."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def server(app, limits: Limits) -> uvicorn.Server:
    """What answers at a listening socket that it is given; without a word, and with nobody's settings but these."""
    return _Server(uvicorn.Config(
        app, loop='asyncio', http=functools.partial(Connection, limits=limits), ws='none', lifespan='off',
        log_config=None, log_level='critical', access_log=False, proxy_headers=False, server_header=False,
        workers=1, backlog=BACKLOG, h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=GRACE_SECONDS))


def serve(app, listener: socket.socket, limits: Limits, ready: Callable[[], None]) -> signal.Signals:
    """Answers until a signal asks to stop, and returns that one."""
    running, asked = server(app, limits), []

    def stop(number: signal.Signals) -> None:
        asked.append(number)
        running.should_exit = True

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # As nohup has it.
                loop.add_signal_handler(number, stop, number)
        loop.call_soon(ready)
        await running.serve(sockets=[listener])

    asyncio.run(run())
    return asked[0] if asked else signal.SIGTERM
