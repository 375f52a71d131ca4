"""`finetune serve`, asked by everyone at once: R16."""

import base64
import contextlib
import http.client
import io
import json
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from finetune import export, predict
from finetune.console.errors import Reject
from finetune.pictures import disk
from tests import corpus
from tests.serving import started
from tests.serving.asking import Answer, Server
from tools.torture import pictures, unless, warm

CLIENTS, STALLED, MUTANTS = 8, 60, 100
MOST_BYTES, MOST_PIXELS = 20 << 20, 100_000_000  # As the server and `predict` have them.
SAME = 1e-4  # Of probabilities: views differ by 2.4e-5.
MEMORY_GROWS = 1.05
SOON = 1.0  # Seconds that a good picture may wait beside those that stall.


class File(NamedTuple):
    name: str
    data: bytes
    told: dict  # What `predict --jsonl` says of it.


class Asked(NamedTuple):
    wrong: str  # '' where the answer was the right one.
    memory: int  # Bytes of the server afterwards.


def asked_by_everyone(place: Path, seed: int, count: int) -> Iterator[str]:
    """A line a file and a request; then for the memory, for good pictures beside those that stall, and for the end.

    First comes each file alone: decoders that are seldom needed stay in memory from their first picture on.
    """
    files = _files(place, seed)
    with (place / 'told').open('w') as told, started.server(
            place / 'export', f'--max_pixels={MOST_PIXELS}', told=told) as (port, process):
        yield from (_alone(Server(port), file) for file in files)
        found = list(_asked(Server(port), files, seed, count, lambda: started.memory(process)))
        yield from (each.wrong for each in found)
        yield _memory_is_flat([each.memory for each in found])
        yield from _beside_stalled(Server(port), next(file for file in files if 'answers' in file.told))
        process.send_signal(signal.SIGTERM)
        yield unless(process.wait(10) == 143, f'SIGTERM ended it with {process.returncode}')
    said = (place / 'told').read_text()
    yield unless('Traceback' not in said, f'it failed at a request: {said[-500:]}')


def _alone(server: Server, file: File) -> str:
    answer = server.predict(file.data, '?top_k=9')
    return _differs(file, answer.status, answer.json)


def _asked(server: Server, files: Sequence[File], seed: int, count: int, memory: Callable) -> Iterator[Asked]:
    """In the order of the requests, of which as many are under way as there are clients."""
    of_client = threading.local()

    def ask(number: int) -> Asked:
        if not hasattr(of_client, 'connection'):
            of_client.connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
        random_ = random.Random(f'{seed} {number}')
        way = random_.choices(list(WAYS), list(WAYS.values()))[0]
        try:
            wrong = way(server, of_client.connection, files, random_)
        except Exception as error:
            wrong = f'{type(error).__name__}: {error}'
        return Asked(wrong and f'request {number} of seed {seed}, {way.__name__}: {wrong}', memory())

    with ThreadPoolExecutor(CLIENTS) as clients:
        yield from clients.map(ask, range(count))


# Files ----------------------------------------------------------------------------------------------------------------


def _files(place: Path, seed: int) -> list[File]:
    """With what `predict` says of each; leaves an export of the same run."""
    assert warm, 'it adds the toy network'
    run, folder = started.run(place / 'run'), place / 'files'
    folder.mkdir()
    for number, data in enumerate(_bytes_of_files(seed)):
        (folder / f'{number:04}.jpg').write_bytes(data)
    with contextlib.redirect_stderr(io.StringIO()):
        with contextlib.redirect_stdout(io.StringIO()):
            assert export.main(
                [str(run.directory), f'--output={place}/export', '--format=openvino', '--num_examples=4']) == 0
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            predict.main([f'--checkpoint_dir={run.directory}', '--jsonl', str(folder)])
    told = map(json.loads, printed.getvalue().splitlines())
    return [File(Path(each['file']).name, Path(each['file']).read_bytes(), each) for each in told]


def _bytes_of_files(seed: int) -> Iterator[bytes]:
    """Pictures of all kinds, mutants of them, and the corpus where it is there."""
    drawn = list(started.pictures().values())
    yield from drawn
    for number in range(MUTANTS):
        yield pictures.mutant(random.Random(f'{seed} {number}'), drawn[number % (len(drawn) - 1)])
    for entry in corpus.manifest()['files'] if corpus.MAKER.exists() else ():
        with contextlib.suppress(Reject, OSError):
            data = disk.read(corpus.path(entry))
            if len(data) <= MOST_BYTES:
                yield data


# What is asked: each returns what is wrong about its answer -----------------------------------------------------------


def a_picture(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    """Good or bad, over a connection that is kept: an answer to another request would be noticed."""
    file = random_.choice(files)
    status, found = _kept(connection, f'/predict?top_k=9&explain={random_.choice("01")}', file.data, 'image/jpeg')
    return _differs(file, status, found)


def a_slow_picture(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    file = random_.choice(files)
    head = server.head('POST', '/predict?top_k=9', f'Content-Length: {len(file.data)}')
    answer = server.sent(head[:20], *_slowly([head[20:], *_pieces(file.data)]))
    return _differs(file, answer.status, answer.json)


def half_a_picture(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    """From one who gives up: what is right about it is that the others are answered."""
    file = random_.choice(files)
    server.connected(server.head('POST', '/predict', f'Content-Length: {2 * len(file.data) + 9}') + file.data).close()
    return ''


def pictures_in_json(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    few = random_.sample(files, random_.randint(1, 3))
    rows = [{'b64': base64.b64encode(file.data).decode()} for file in few]
    status, found = _kept(connection, '/v1/models/export:predict', json.dumps({'instances': rows}).encode(),
                          'application/json')
    bad = next((file for file in few if 'error' in file.told), None)
    if bad:
        return unless((status, found.get('error')) == (422, bad.told['error']), f'{bad.name}: {status} {found}')
    rows = found.get('predictions', [])
    right = len(rows) == len(few) and all(
        row['labels'][0] == file.told['answers'][0]['label'] for row, file in zip(rows, few, strict=True))
    return unless(status == 200 and right, f'{[file.name for file in few]}: {status} {str(found)[:300]}')


def a_hostile_request(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    name = random_.choice(list(HOSTILE))
    asked, expected = HOSTILE[name]
    answer = asked(server)
    right = answer.status == expected and answer.headers['content-type'] == 'application/json'
    return unless(right and set(answer.json) == {'error', 'detail'}, f'{name}: {answer.status} {answer.body[:200]}')


def a_huge_request(server: Server, connection, files: Sequence[File], random_: random.Random) -> str:
    answer = random_.choice((
        lambda: server.sent(server.head('POST', '/predict', f'Content-Length: {10**12}')),
        lambda: server.predict(bytes(MOST_BYTES + 1)), lambda: server.predict(BOMB)))()
    expected = (413, 'too_large'), (422, 'too_many_pixels')
    return unless((answer.status, answer.json['error']) in expected, f'{answer.status} {answer.body[:200]}')


WAYS = {a_picture: 14, a_slow_picture: 1, half_a_picture: 1, pictures_in_json: 3, a_hostile_request: 5,
        a_huge_request: 1}  # Of 25 requests.
BOMB = b'RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f\xff\xff\xff\x1f\0\0\0\0\0\0\0\0\0'  # Of 16384 x 16384 pixels.
HOSTILE: dict[str, tuple[Callable[[Server], Answer], int]] = {
    'another name': (lambda server: server.asked('GET', '/model', host='evil.example'), 421),
    'another site': (lambda server: server.asked('POST', '/predict', 'Origin: http://evil.example', body=b'x'), 403),
    'its script': (lambda server: server.asked('GET', '/model', 'Sec-Fetch-Site: cross-site'), 403),
    'a form': (lambda server: server.asked('POST', '/predict', 'Content-Type: multipart/form-data', body=b'x'), 415),
    'no length': (lambda server: server.sent(server.head('POST', '/predict')), 411),
    'pieces': (lambda server: server.sent(server.head('POST', '/predict', 'Transfer-Encoding: chunked'), b'0\r\n\r\n'),
               411),
    'a length below 0': (lambda server: server.sent(server.head('POST', '/predict', 'Content-Length: -1')), 400),
    'two lengths': (lambda server: server.sent(
        server.head('POST', '/predict', 'Content-Length: 1', 'Content-Length: 2'), b'x'), 400),
    'no HTTP': (lambda server: server.sent(b'\x16\x03\x01\x02\x00\x01\r\n\r\n'), 400),
    'many headers': (lambda server: server.asked('GET', '/', *(f'X-{number}: x' for number in range(200))), 431),
    'a file of the server': (lambda server: server.asked('GET', '/../../etc/passwd'), 404),
    'another method': (lambda server: server.asked('DELETE', '/predict'), 405),
    'another question': (lambda server: server.predict(b'x', '?top_k=-1'), 400),
    'deep JSON': (lambda server: server.posted('/v1/models/export:predict', b'[' * 200_000), 400),
    'wide JSON': (lambda server: server.posted('/v2/models/export/infer', b'[' + b'{},' * 99_999 + b'{}]'), 400),
    'no JSON': (lambda server: server.posted('/v2/models/export/infer', b'\xff'), 400),
}


def _kept(connection: http.client.HTTPConnection, path: str, body: bytes, kind: str) -> tuple[int, dict]:
    """As a good client asks: over a new connection where the old one was closed, and again where it is told so."""
    try:
        status, found = started.asked_on(connection, path, body, kind)
    except ConnectionError:  # While nobody asked.
        connection.close()
        status, found = started.asked_on(connection, path, body, kind)
    if status != 503:
        return status, found
    time.sleep(1)
    return _kept(connection, path, body, kind)


def _pieces(data: bytes, count: int = 5) -> list[bytes]:
    each = len(data) // count + 1
    return [data[first:first + each] for first in range(0, len(data), each)]


def _slowly(parts: Sequence[bytes]) -> Iterator[bytes]:
    for part in parts:
        time.sleep(0.1)
        yield part


def _differs(file: File, status: int, found: dict) -> str:
    """From what `predict` says of it."""
    if 'error' in file.told:
        return unless((status, found.get('error')) == (422, file.told['error']), f'{file.name}: {status} {found}')
    told, answers = file.told['answers'], found.get('answers', [])
    if status != 200 or answers[0]['label'] != told[0]['label']:
        return f'{file.name}: {status} {str(found)[:300]}, and predict says {told}'
    likely = {each['label']: each['probability'] for each in answers}
    apart = max(abs(likely[each['label']] - each['probability']) for each in told)
    return unless(apart < SAME, f'{file.name}: probabilities {apart:.2g} apart')


# Afterwards -----------------------------------------------------------------------------------------------------------


def _memory_is_flat(memory: Sequence[int]) -> str:
    """The median of the last tenth of the requests beside that of the first."""
    tenth = max(len(memory) // 10, 1)
    first, last = statistics.median(memory[:tenth]), statistics.median(memory[-tenth:])
    return unless(last <= MEMORY_GROWS * first, f'its memory grew from {first / 2**20:.0f} to {last / 2**20:.0f} MB')


def _beside_stalled(server: Server, file: File) -> Iterator[str]:
    others = [server.stalled(number) for number in range(STALLED)]
    for _ in range(5):
        began = time.monotonic()
        wrong = _alone(server, file)
        seconds = time.monotonic() - began
        yield wrong or unless(
            seconds < SOON, f'beside {STALLED} that stall a good picture waited {seconds:.1f} s')
    for connection in others:
        connection.close()
