"""A client that says exactly what it is told to, byte by byte."""

import contextlib
import json
import socket
from collections.abc import Callable
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """One that listens; `stop` asks it to end."""

    def __init__(self, port: int, stop: Callable[[], None] | None = None):
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

    def stalled(self, kind: int) -> socket.socket:
        """A connection over which nothing more comes: before, in or behind the headers, or in the body."""
        head = self.head('POST', '/predict', 'Content-Length: 90000')
        return self.connected((b'', b'POST /pre', head, head + b'\xff\xd8' + b'x' * 10_000)[kind % 4])

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
