"""What a server on one's own machine refuses: pages of other sites, and who sends too much, too slowly or badly."""

import base64
import json
import os
import sys
import threading
import time

import pytest

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')

from finetune.predicting.answering import Answer
from finetune.serving import guards
from finetune.serving.desk import Told
from finetune.serving.guards import HEADERS
from tests import toy
from tests.serving import asking, toy_server


@pytest.fixture(scope='module')
def server():
    with toy_server.running(body_bytes=100_000, all_bodies_bytes=10**7, body_seconds=1.0, header_seconds=1.0,
                            drain_seconds=1.0) as running:
        yield running


def picture(number: int = 1) -> bytes:
    return toy.encoded(toy.picture(number))


def assert_refused(answer, status: int, word: str) -> None:
    """As JSON of two texts, with everything that every answer carries, and without a word of the inside."""
    assert (answer.status, answer.json['error']) == (status, word)
    assert set(answer.json) <= {'error', 'detail', 'file'} and answer.headers['content-type'] == 'application/json'
    assert not {name: answer.headers.get(name) for name, value in HEADERS.items() if answer.headers.get(name) != value}
    assert not any(inside in answer.body.decode() for inside in ('/work', '/tmp', 'finetune/', 'Traceback', '.py'))


# Who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', [
    'evil.example', '127.0.0.1', 'localhost', '127.0.0.1:1', '127.0.0.1.evil.example:{port}', 'localhost:{port}.evil',
    'evil@127.0.0.1:{port}', '127.0.0.1:{port}, evil', '[::1]', '127.1:{port}', '2130706433:{port}',
])
def test_a_name_that_another_site_lets_point_here_is_none_of_ours(server, host):
    for path in ('/', '/model', '/predict', '/v2/health/live'):
        assert_refused(server.asked('GET', path, host=host.format(port=server.port)), 421, 'host_not_allowed')


def test_the_names_of_this_machine_and_those_that_were_allowed_are_ours():
    with toy_server.running(hosts=('photos.example',)) as server:
        for host in (server.host, f'localhost:{server.port}', f'LOCALHOST:{server.port}', 'photos.example'):
            assert server.asked('GET', '/', host=host).status == 200
        assert server.asked('GET', '/', host='photos.example:80').status == 421


def test_a_request_without_a_name_or_with_two_is_refused(server):
    assert_refused(server.asked('GET', '/', host=''), 400, 'not_http')
    assert_refused(server.asked('GET', '/', f'Host: {server.host}'), 400, 'not_http')


@pytest.mark.parametrize('line', [
    'Origin: http://evil.example', 'Origin: null', 'Origin: http://127.0.0.1:1', 'Origin: http://{host}.evil.example',
    'Origin: file://', 'Origin: http://localhost:{port}', 'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Site: same-site',
])
def test_pages_of_other_sites_may_not_ask(server, line):
    line = line.format(host=server.host, port=server.port)
    assert_refused(server.asked('POST', '/predict', line, 'Content-Type: image/jpeg', body=picture()), 403,
                   'foreign_origin')
    assert_refused(server.asked('GET', '/model', line), 403, 'foreign_origin')


def test_no_answer_lets_another_site_read_it(server):
    own = f'Origin: http://{server.host}'
    answers = [server.asked('OPTIONS', '/predict', own, 'Access-Control-Request-Method: POST'),
               server.asked('GET', '/', own, 'Sec-Fetch-Site: same-origin'), server.asked('GET', '/nowhere'),
               server.predict(picture())]
    assert [answer.status for answer in answers] == [405, 200, 404, 200]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith('access-control')]
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
        assert 'server' not in answer.headers


def test_whoever_does_not_know_the_token_gets_the_empty_page_and_no_more():
    with toy_server.running(token=toy_server.TOKEN) as server:
        assert server.asked('GET', '/').status == server.asked('GET', '/page.js').status == 200
        for line in ((), ('Authorization: Bearer wrong',), (f'Authorization: {toy_server.TOKEN}',),
                     (f'Authorization: Bearer {toy_server.TOKEN}x',), ('Authorization: Bearer \xff',)):
            for path in ('/model', '/v2/health/live', '/nowhere'):
                assert_refused(server.asked('GET', path, *line), 401, 'token_missing')
        assert server.asked('GET', '/model', f'Authorization: Bearer {toy_server.TOKEN}').status == 200


def test_a_token_is_compared_in_the_same_time_however_much_of_it_is_right(monkeypatch):
    compared = []
    monkeypatch.setattr(guards.hmac, 'compare_digest', lambda *pair: compared.append(pair) or False)
    with toy_server.running(token=toy_server.TOKEN) as server:
        assert server.asked('GET', '/model', f'Authorization: Bearer {toy_server.TOKEN}').status == 401
    assert compared == [(f'Bearer {toy_server.TOKEN}'.encode(),) * 2]


# What they send ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length, status, word', [
    (None, 411, 'length_required'), ('-1', 400, 'not_http'), ('+5', 400, 'not_http'), ('5x', 400, 'not_http'),
    ('0x10', 400, 'not_http'), ('٣', 400, 'not_http'), ('1e3', 400, 'not_http'), ('', 400, 'not_http'),
    ('5, 6', 400, 'not_http'), ('100001', 413, 'too_large'), (str(10**12), 413, 'too_large'),
    ('9' * 30, 400, 'not_http'),
])
def test_a_body_says_once_and_in_digits_how_long_it_is(server, length, status, word):
    lines = [] if length is None else [f'Content-Length: {length}']
    started = time.monotonic()
    assert_refused(server.sent(server.head('POST', '/predict', *lines)), status, word)
    assert time.monotonic() - started < 0.9  # Nothing of the body was waited for.


def test_two_lengths_and_pieces_of_unknown_length_are_refused(server):
    two = server.head('POST', '/predict', 'Content-Length: 5', 'Content-Length: 6')
    assert_refused(server.sent(two, b'hello'), 400, 'not_http')
    chunked = server.head('POST', '/predict', 'Transfer-Encoding: chunked')
    assert_refused(server.sent(chunked, b'5\r\nhello\r\n0\r\n\r\n'), 411, 'length_required')
    both = server.head('POST', '/predict', 'Transfer-Encoding: chunked', 'Content-Length: 5')
    assert server.sent(both, b'hello').status in (400, 411)


def test_a_large_body_is_told_so_even_while_it_comes(server):
    answer = server.sent(server.head('POST', '/predict', 'Content-Length: 5000000'), b'x' * 5_000_000)
    assert_refused(answer, 413, 'too_large')


@pytest.mark.parametrize('line', [
    'Content-Type: multipart/form-data; boundary=x', 'Content-Type: Multipart/Mixed',
    'Content-Type: application/x-www-form-urlencoded', 'Content-Encoding: gzip',
])
def test_forms_and_packed_bodies_are_not_read(server, line):
    assert_refused(server.asked('POST', '/predict', line, body=picture()), 415, 'unsupported_type')


@pytest.mark.parametrize('kind', ['text/plain', 'application/octet-stream', 'application/jsonx', ''])
def test_json_comes_with_its_content_type_only(server, kind):
    for path in ('/v1/models/toy:predict', '/v2/models/toy/infer'):
        answer = server.asked('POST', path, *([f'Content-Type: {kind}'] if kind else []), body=b'{}')
        assert_refused(answer, 415, 'unsupported_type')


@pytest.mark.parametrize('body', [
    b'', b'[', b'[]', b'null', b'{"instances": ' + b'[' * 9000, b'[' * 100_000, b'{"a":' * 9000, b'{"instances": []}',
    b'{"instances": 5}', b'{"instances": [{"b64": 5}]}', b'{"instances": [{"b64": "%%%"}]}', b'\xff\xfe', b'{"a": 1}',
    b'{"instances": [' + b'{"b64": ""},' * 40 + b'{"b64": ""}]}', b'{"inputs": {"files": {"files": null}}}',
    b'[' + b'{},' * 30_000 + b'{}]', b'9' * 9000, b'{"inputs": [{"datatype": "BYTES", "shape": [2], "data": [""]}]}',
    b'{"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]}', b'{"inputs": "x"}', b'{"inputs": [5]}',
])
def test_json_that_is_deep_wide_or_not_what_was_meant_is_a_400(server, body):
    for path in ('/v1/models/toy:predict', '/v2/models/toy/infer'):
        assert_refused(server.posted(path, body), 400, 'bad_request')


def test_headers_have_an_end(server):
    many = [f'X-{number}: x' for number in range(200)]
    assert_refused(server.asked('GET', '/', *many), 431, 'headers_too_large')
    assert_refused(server.asked('GET', '/', f'X: {"x" * 70_000}'), 431, 'headers_too_large')
    assert_refused(server.sent(b'GET / HTTP/1.1\r\nX: ' + b'x' * 300_000), 431, 'headers_too_large')
    assert_refused(server.asked('GET', '/' + 'x' * 30_000), 431, 'headers_too_large')


@pytest.mark.parametrize('garbage', [
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + b'\x00' * 200, b'hello\r\n\r\n', b'\r\n' * 50 + b'GET\r\n\r\n',
    b'GET / HTTP/9.9\r\n\r\n', b'GET / HTTP/1.1\r\nHost : x\r\n\r\n', b'GET / HTTP/1.1\r\nA\x00: b\r\n\r\n',
    b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
])
def test_what_is_no_http_gets_an_answer_in_json_too(server, garbage):
    assert_refused(server.sent(garbage), 400, 'not_http')


@pytest.mark.parametrize('path', [
    '/../../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '//etc/passwd', '/page.css/../../serve.py', '/page.css%00.txt',
    '/static/page.js', '/index.html', '/.git/config', '/v1/models/other', '/v2/models/toy/versions/1', '/predict/',
])
def test_no_path_leads_to_a_file(server, path):
    assert_refused(server.asked('GET', path), 404, 'not_found')


@pytest.mark.parametrize('method, path', [
    ('GET', '/predict'), ('PUT', '/predict'), ('DELETE', '/'), ('POST', '/'), ('TRACE', '/'),
    ('GET', '/v1/models/toy:predict'),
])
def test_another_method_is_told(server, method, path):
    answer = server.asked(method, path, body=b'' if method == 'POST' else None)
    assert_refused(answer, 405, 'method_not_allowed')


@pytest.mark.parametrize('query', ['?top_k=0', '?top_k=-1', '?top_k=x', '?top_k=', '?explain=2', '?path=/etc/passwd',
                                   '?top_k=99999999999'])
def test_a_question_that_makes_no_sense_is_told(server, query):
    assert_refused(server.predict(picture(), query), 400, 'bad_request')


@pytest.mark.parametrize('data, word', [
    (b'', 'empty_file'), (b'hello', 'not_an_image'), (picture()[:-200], 'truncated'),
    (b'RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0\x2f\xff\xff\xff\x1f\0\0\0\0\0\0\0\0\0', 'too_many_pixels'),
    (toy.encoded(toy.picture(1, (1200, 900))), 'too_many_pixels'),
])
def test_what_is_no_good_picture_is_told_as_predict_tells_it(server, data, word):
    started = time.monotonic()
    answer = server.predict(data)
    assert_refused(answer, 422, word)
    assert answer.json['file'] is None and time.monotonic() - started < 1


def test_a_failure_is_written_down_here_and_told_without_a_word_of_the_inside(capfd):
    secret = '/'.join(['', 'home', 'me', 'secret'])

    def failing(picture, against=None):
        raise OSError(2, 'No such file', secret)

    with toy_server.running(failing) as server:
        assert_refused(server.predict(picture()), 500, 'failed')
        answer = server.posted('/v1/models/toy:predict', {'instances': [{'b64': ''}]})
        assert_refused(answer, 500, 'failed')
        assert server.asked('GET', '/v2/health/live').json == {'live': True}
    told = capfd.readouterr().err
    assert told.count(secret) == 2 and told.count('Traceback') == 2


def test_nothing_of_good_requests_is_written_down(server, capfd):
    server.predict(picture(), '?explain=1')
    server.predict(b'hello')
    assert capfd.readouterr() == ('', '')


def test_no_request_leaves_a_file(server):
    opened, written = [], os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def note(event, arguments):
        if event == 'open' and arguments[2] & written:
            opened.append(arguments[0])

    sys.addaudithook(note)  # It stays: nothing takes one away.
    for data in (picture(), b'hello', toy.encoded(toy.picture(1), 'WEBP'), toy.encoded(toy.picture(1), 'TIFF')):
        server.predict(data, '?explain=1')
    server.posted('/v1/models/toy:predict', {'instances': [{'b64': base64.b64encode(picture()).decode()}]})
    assert opened == []


# How long, and how many -------------------------------------------------------------------------------------------


def test_whoever_stalls_is_told_and_let_go(server):
    for sent in (b'', b'GET / HT', server.head('GET', '/')[:-2]):
        with server.connected(sent) as connection:
            assert_refused(asking.received(connection), 408, 'too_slow')
            assert connection.recv(1) == b''
    with server.connected(server.head('POST', '/predict', 'Content-Length: 50') + b'few') as connection:
        assert_refused(asking.received(connection), 408, 'too_slow')
        assert connection.recv(1) == b''


def test_a_connection_is_kept_for_the_next_request_and_not_for_ever():
    with toy_server.running(header_seconds=0.3) as server, server.connected() as connection:
        for _ in range(3):
            connection.sendall(server.head('POST', '/predict', f'Content-Length: {len(picture())}') + picture())
            assert asking.received(connection).status == 200
        connection.sendall(b'GET / HT')
        assert_refused(asking.received(connection), 408, 'too_slow')


def test_no_answer_waits_for_the_client_to_acknowledge_its_first_part(server):
    with server.connected() as connection:
        began = time.monotonic()
        for _ in range(100):
            connection.sendall(server.head('GET', '/v2/health/live'))
            assert asking.received(connection).status == 200
        assert time.monotonic() - began < 2  # 40 ms each where it waits.


def test_requests_behind_one_another_are_each_answered(server):
    one = server.head('GET', '/v2/health/live')
    with server.connected(one + one + one) as connection:
        data = b''
        while data.count(b'{"live": true}') < 3:
            data += connection.recv(4096)


@pytest.mark.parametrize('cap', [128, 20])
def test_sixty_stalled_connections_do_not_keep_a_good_one_from_its_answer(cap):
    with toy_server.running(connections=cap, header_seconds=30.0, body_seconds=30.0) as server:
        others = [server.stalled(number) for number in range(60)]
        for _ in range(5):
            started = time.monotonic()
            assert server.predict(picture()).status == 200
            assert time.monotonic() - started < 1
        closed = 0
        for connection in others:
            connection.setblocking(False)
            try:
                closed += connection.recv(1) == b''
            except BlockingIOError:
                pass
            except ConnectionResetError:
                closed += 1
            connection.close()
        assert (closed == 0) if cap == 128 else (60 - cap <= closed <= 60 - cap + 6)  # The oldest, and no more.


def test_a_client_that_keeps_asking_keeps_its_connection_beside_those_that_stall():
    one = f'Content-Length: {len(picture())}'
    with toy_server.running(connections=20, header_seconds=30.0, body_seconds=30.0) as server, \
            server.connected() as client:
        others = []
        for number in range(60):
            others.append(server.stalled(number))
            if number % 5 == 0:
                client.sendall(server.head('POST', '/predict', one) + picture())
                assert asking.received(client).status == 200
        for connection in others:
            connection.close()


def test_bodies_that_stall_do_not_fill_the_memory():
    with toy_server.running(body_bytes=100_000, all_bodies_bytes=300_000, body_seconds=20.0) as server:
        head = server.head('POST', '/predict', 'Content-Length: 100000')
        others = [server.connected(head + b'x' * 90_000) for _ in range(6)]
        time.sleep(0.2)
        assert server.predict(picture()).status == 200
        assert_refused(asking.received(others[0]), 408, 'too_slow')  # The oldest makes room.
        for connection in others:
            connection.close()


def test_more_pictures_than_may_wait_are_told_when_to_come_back():
    go_on = threading.Event()

    def slow(picture, against=None):
        go_on.wait(20)
        raise AssertionError

    with toy_server.running(slow, threads=1, most=3) as server:
        head = server.head('POST', '/predict', f'Content-Length: {len(picture())}')
        waiting = [server.connected(head + picture()) for _ in range(3)]
        time.sleep(0.3)
        started = time.monotonic()
        answer = server.predict(picture())
        assert_refused(answer, 503, 'busy')
        assert answer.headers['retry-after'] == '1' and time.monotonic() - started < 1
        assert server.asked('GET', '/v2/health/live').status == 200
        go_on.set()
        for connection in waiting:
            connection.close()


def test_what_comes_behind_a_refusal_is_not_read_for_ever():
    with toy_server.running(body_bytes=1000, drain_seconds=0.3) as server:
        connection = server.connected(server.head('POST', '/predict', f'Content-Length: {10**9}'))
        assert asking.received(connection).status == 413
        started = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() - started < 10:
                connection.sendall(b'x' * 1000)
                time.sleep(0.01)


def test_an_answer_that_nobody_fetches_is_given_up():
    with toy_server.running(request_seconds=0.5) as other, other.connected() as connection:
        one = other.head('GET', '/page.js')
        with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError)):
            connection.settimeout(5)
            for _ in range(100_000):
                connection.sendall(one)
        assert json.loads(other.asked('GET', '/v2/health/live').body) == {'live': True}


def test_an_answer_that_is_being_given_is_given_before_the_end():
    began = threading.Event()

    def slow(picture, against=None):
        began.set()
        time.sleep(0.15)
        return Told(Answer('', [('red', 1.0)]))

    with toy_server.running(slow) as server, server.connected(
            server.head('POST', '/predict', 'Content-Length: 3') + b'abc') as connection:
        assert began.wait(10)
        server.stop()
        assert asking.received(connection).json['answers'][0]['label'] == 'red'
