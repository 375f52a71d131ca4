"""A server in a thread of the test, of a network that knows colours, and a client that says exactly what it is told."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from finetune.pictures import quick_views
from finetune.serving import connections, desk, guards, routes
from finetune.serving.served import Said, Served
from finetune.serving.threads import Threads

LABELS = ['blue', 'green', 'red']
TOKEN = 'a-word-to-know'


def said(view: np.ndarray, explained: bool) -> Said:
    """The colour that is strongest, where one is; each place says how strong it is there."""
    strength = view.mean(axis=(0, 1))[::-1]
    likely = strength / max(strength.sum(), 1e-9)
    order = np.argsort(-likely, kind='stable')
    answer = {'top': [(LABELS[number], float(likely[number])) for number in order], 'familiarity': 0.5,
              'is_unknown': bool(likely.max() < 0.4)}
    return Said(answer, view[..., ::-1], view) if explained else Said(answer)


SERVED = Served('toy', '7', 'a toy', LABELS, True, True, {}, lambda encoded: quick_views.view(
    quick_views.decode(encoded), 16, 1.0), said)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    def __init__(self, port: int, stop: Callable[[], None]):
        self.port, self.stop = port, stop

    @property
    def host(self) -> str:
        return f'127.0.0.1:{self.port}'

    def connected(self, sent: bytes = b'') -> socket.socket:
        connection = socket.create_connection(('127.0.0.1', self.port), timeout=20)
        connection.sendall(sent)
        return connection

    def head(self, method: str, path: str, *lines: str, host: str | None = None) -> bytes:
        host = self.host if host is None else host
        return '\r\n'.join([f'{method} {path} HTTP/1.1', *([f'Host: {host}'] if host else []), *lines, '', '']).encode()

    def sent(self, *parts: bytes) -> Answer:
        """The answer to exactly these bytes."""
        with self.connected() as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for part in parts:
                    connection.sendall(part)
            return received(connection)

    def asked(self, method: str, path: str, *lines: str, body: bytes | None = None, host: str | None = None) -> Answer:
        length = () if body is None else (f'Content-Length: {len(body)}',)
        return self.sent(self.head(method, path, *lines, *length, host=host) + (body or b''))

    def predict(self, picture: bytes, query: str = '') -> Answer:
        return self.asked('POST', f'/predict{query}', 'Content-Type: image/jpeg', body=picture)

    def posted(self, path: str, content) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.asked('POST', path, 'Content-Type: application/json', body=body)


def received(connection: socket.socket) -> Answer:
    """One answer; what comes is read until its length has come, or the end."""
    data = b''
    with contextlib.suppress(ConnectionResetError):
        while not _is_whole(data) and (more := connection.recv(1 << 16)):
            data += more
    head, _, body = data.partition(b'\r\n\r\n')
    status, *lines = head.decode('latin-1').split('\r\n')
    headers = {name.lower(): value for name, _, value in (line.partition(': ') for line in lines)}
    return Answer(int(status.split()[1]) if status else 0, headers, body)


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b'\r\n\r\n')
    length = [line for line in head.lower().split(b'\r\n') if line.startswith(b'content-length: ')]
    return bool(end) and bool(length) and len(body) >= int(length[0].split()[1])


@contextlib.contextmanager
def running(
    said_of: Callable | None = None, token: str | None = None, hosts: tuple[str, ...] = (), threads: int = 2,
    most: int = 8, most_pixels: int = 10**6, served: Served = SERVED, **limits
) -> Iterator[Server]:
    limits = guards.Limits(**limits)
    listener = connections.listening('127.0.0.1', 0)
    port = listener.getsockname()[1]
    app = routes.application(served, said_of or desk.desk(served, most_pixels, 2), Threads(threads, most), limits, 3)
    names = frozenset({f'127.0.0.1:{port}', f'localhost:{port}', *hosts})
    server = connections.server(guards.guarded(app, names, token, limits), limits)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True

    try:
        yield Server(port, stop)
    finally:
        stop()
        thread.join(10)
