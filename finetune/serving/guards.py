"""What no request gets past: who may ask, how, and how much; and what every answer carries."""

import asyncio
import hmac
import json
import traceback
from dataclasses import dataclass

from finetune.console.terminal import say

HEADERS = {  # Of every answer. A page of another site can neither read one nor frame it, and nothing is kept.
    'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY', 'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin', 'cross-origin-opener-policy': 'same-origin',
    'permissions-policy': 'camera=(self), microphone=(), geolocation=()', 'cache-control': 'no-store',
}
OWN_SITE = ('same-origin', 'none')  # Of Sec-Fetch-Site: the page itself, and what a person typed.
FORMS = ('multipart/', 'application/x-www-form-urlencoded')


@dataclass(frozen=True)
class Limits:
    body_bytes: int = 20 << 20  # Of one picture.
    all_bodies_bytes: int = 256 << 20  # Of those that are being read, together.
    header_bytes: int = 16 << 10
    headers: int = 64
    connections: int = 128
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    request_seconds: float = 90.0  # From its first byte to the last one of its answer.
    drain_seconds: float = 5.0  # For what still comes of a body that was refused.

    @property
    def json_bytes(self) -> int:
        """Of a body in JSON, which holds a picture in base64."""
        return self.body_bytes * 4 // 3 + (64 << 10)


class Refused(Exception):
    """An answer that is an error: a status, a word for programs, and a sentence for people."""

    def __init__(self, status: int, error: str, detail: str, headers: dict | None = None):
        super().__init__(status, error)
        self.status, self.headers = status, headers or {}
        self.body = json.dumps({'error': error, 'detail': detail}).encode()


FAILED = Refused(500, 'failed', 'The server has failed at this request; it has written down why.')
TOO_SLOW = Refused(408, 'too_slow', 'The request did not come in time.', {'connection': 'close'})
HEADERS_TOO_LARGE = Refused(431, 'headers_too_large', 'The headers are longer, or more, than a server of pictures '
                            'reads.', {'connection': 'close'})
NOT_HTTP = Refused(400, 'not_http', 'This is not HTTP as a server can understand it in one way only.',
                   {'connection': 'close'})
TOO_MANY = Refused(503, 'busy', 'As many connections as there may be are open.',
                   {'connection': 'close', 'retry-after': '1'})
BUSY = Refused(503, 'busy', 'As many pictures as may wait are waiting: ask again.', {'retry-after': '1'})


def told_on_the_server(error: BaseException) -> None:
    """Where it was raised, for whoever runs the server; of the picture there is nothing in it."""
    say(''.join(traceback.format_exception(error)))


def guarded(app, hosts: frozenset[str], token: str | None, limits: Limits):
    """The ASGI application behind the guards; `hosts` are all that a Host header may say."""
    async def guard(scope, receive, send) -> None:
        has_begun = False

        async def send_with_headers(message) -> None:
            nonlocal has_begun
            if message['type'] == 'http.response.start':
                has_begun = True
                message = message | {'headers': [*message.get('headers', ()), *_encoded(HEADERS)]}
            await send(message)

        try:
            _check(scope, hosts, token, limits)
            await app(scope, receive, send_with_headers)
        except Refused as refused:
            if not has_begun:
                await _answer(refused, send_with_headers)
        except Exception as error:
            told_on_the_server(error)
            if not has_begun:
                await _answer(FAILED, send_with_headers)

    return guard


async def _answer(refused: Refused, send) -> None:
    headers = {'content-type': 'application/json', 'content-length': str(len(refused.body)), **refused.headers}
    await send({'type': 'http.response.start', 'status': refused.status, 'headers': _encoded(headers)})
    await send({'type': 'http.response.body', 'body': refused.body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _check(scope, hosts: frozenset[str], token: str | None, limits: Limits) -> None:
    """Raises Refused."""
    if scope['http_version'] not in ('1.0', '1.1'):
        raise NOT_HTTP
    size = sum(len(name) + len(value) + 4 for name, value in scope['headers']) + len(scope['raw_path'])
    if size + len(scope['query_string']) > limits.header_bytes or len(scope['headers']) > limits.headers:
        raise HEADERS_TOO_LARGE
    _check_who_asks(scope, hosts)
    _check_token(scope, token)
    _check_body(scope)


def _values(scope, name: bytes) -> list[str]:
    return [value.decode('latin-1') for key, value in scope['headers'] if key == name]


def _check_who_asks(scope, hosts: frozenset[str]) -> None:
    """A name that another site lets point here (DNS rebinding) is none of ours, and neither is that site's page."""
    asked = _values(scope, b'host')
    if len(asked) != 1 or asked[0].lower() not in hosts:
        raise Refused(421, 'host_not_allowed', 'This server has another name; --allowed_hosts lists more of them.')
    own = {f'{scheme}://{asked[0].lower()}' for scheme in ('http', 'https')}  # TLS may end before us.
    origins, sites = _values(scope, b'origin'), _values(scope, b'sec-fetch-site')
    if any(origin.lower() not in own for origin in origins) or any(site not in OWN_SITE for site in sites):
        raise Refused(403, 'foreign_origin', 'Pages of other sites may not ask this server.')


def _check_token(scope, token: str | None) -> None:
    """Only the page itself, which says nothing of the model, is there for everyone."""
    if token is None or scope['path'] in PAGE:
        return
    given = ' '.join(_values(scope, b'authorization')).encode('latin-1')
    if not hmac.compare_digest(given, f'Bearer {token}'.encode()):
        raise Refused(401, 'token_missing', 'This server asks for its token: Authorization: Bearer TOKEN.',
                      {'www-authenticate': 'Bearer'})


PAGE = {'/': ('index.html', 'text/html; charset=utf-8'), '/page.css': ('page.css', 'text/css; charset=utf-8'),
        '/page.js': ('page.js', 'text/javascript; charset=utf-8'), '/icon.svg': ('icon.svg', 'image/svg+xml')}


def _check_body(scope) -> None:
    lengths, codings = _values(scope, b'content-length'), _values(scope, b'transfer-encoding')
    if codings or (scope['method'] == 'POST' and not lengths):
        raise Refused(411, 'length_required', 'Say how long the body is, with one Content-Length.',
                      {'connection': 'close'})
    if len(lengths) > 1 or not all(length.isascii() and length.isdecimal() for length in lengths):
        raise NOT_HTTP
    if scope['method'] != 'POST' and any(map(int, lengths)):
        raise Refused(400, 'no_body_expected', 'Only POST has a body.', {'connection': 'close'})
    if any(coding != 'identity' for coding in _values(scope, b'content-encoding')):
        raise Refused(415, 'unsupported_type', 'Send the body as it is, not compressed.')
    if any(kind.lower().startswith(FORMS) for kind in _values(scope, b'content-type')):
        raise Refused(415, 'unsupported_type', 'Forms are not read: send the file itself as the body, with '
                      'Content-Type: application/octet-stream (curl --data-binary @FILE -H "Content-Type: '
                      'application/octet-stream").')


class Bodies:
    """Reads bodies, each within its limit and time, and all of them within one room: the oldest makes room."""

    def __init__(self, limits: Limits):
        self._limits, self._reading = limits, {}  # Deadline -> bytes that have come, the oldest first.

    async def read(self, scope, receive, most: int) -> bytes:
        length = int(_values(scope, b'content-length')[0])
        if length > most:
            raise Refused(413, 'too_large', f'{length} bytes; the limit is {most}.')
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                try:
                    while len(body) < length:
                        message = await receive()
                        if message['type'] == 'http.disconnect':
                            raise TOO_SLOW  # Nobody hears it.
                        body += message.get('body', b'')
                        self._reading[deadline] = len(body)
                        self._make_room()
                finally:
                    self._reading.pop(deadline, None)
        except TimeoutError:
            raise TOO_SLOW from None
        return bytes(body)

    def _make_room(self) -> None:
        if sum(self._reading.values()) > self._limits.all_bodies_bytes:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            oldest.reschedule(0)
