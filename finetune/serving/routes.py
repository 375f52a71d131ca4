"""Every address that there is: the page, and what programs ask. No path of a request ever leads to a file."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from finetune.serving import protocols
from finetune.serving.desk import Told, as_json
from finetune.serving.guards import BUSY, FAILED, PAGE, Bodies, Limits, Refused
from finetune.serving.served import Served
from finetune.serving.threads import Busy, Threads

FILES = Path(__file__).parent / 'page'
AGAINST = {'0': None, '1': 'mean', 'second': 'second'}  # By ?explain=
HEADERS_OF = {404: ('not_found', 'There is nothing at this address.'),
              405: ('method_not_allowed', 'This address takes another method.')}


def application(served: Served, told_of: Callable[..., Told], threads: Threads, limits: Limits, top_k: int):
    """`told_of` is a `desk.desk`; what it does, the threads do."""
    bodies = Bodies(limits)

    async def predict(request: Request) -> Response:
        most, against = _asked(request, top_k)
        picture = await bodies.read(request.scope, request.receive, limits.body_bytes)
        told = await _done(threads, told_of, picture, against)
        return _json(as_json(told, most), 422 if told.answer.rejected else 200)

    async def predict_as_tensorflow(request: Request) -> Response:
        body = await _json_body(request, bodies, limits)
        pictures, as_rows = protocols.of_tensorflow(body, limits.body_bytes)
        return _json(protocols.for_tensorflow(await _done(threads, all_told, pictures), as_rows))

    async def infer(request: Request) -> Response:
        body = await _json_body(request, bodies, limits)
        pictures, asked = protocols.of_kserve(body, limits.body_bytes)
        return _json(protocols.for_kserve(await _done(threads, all_told, pictures), asked, served))

    def all_told(pictures: list[bytes]) -> list[Told]:
        return [told_of(picture) for picture in pictures]

    one, two = f'/v1/models/{served.name}', f'/v2/models/{served.name}'
    version = {'name': 'finetune', 'version': '2', 'extensions': []}
    said = {
        one: protocols.status(served), '/v2': version, two: protocols.metadata(served),
        '/v2/health/live': {'live': True}, '/v2/health/ready': {'ready': True},
        f'{two}/ready': {'name': served.name, 'ready': True}, '/model': _about(served, limits)}
    routes = [
        *(Route(path, _constant((FILES / file).read_bytes(), kind)) for path, (file, kind) in PAGE.items()),
        *(Route(path, _constant(json.dumps(content).encode(), 'application/json')) for path, content in said.items()),
        Route('/predict', predict, methods=['POST']),
        Route(f'{one}:predict', predict_as_tensorflow, methods=['POST']),
        Route(f'{two}/infer', infer, methods=['POST'])]
    app = Starlette(routes=routes, exception_handlers={
        HTTPException: _not_here, Refused: _refused, Exception: _failed})
    app.router.redirect_slashes = False
    return app


def _about(served: Served, limits: Limits) -> dict:
    """What the page says before there is a picture."""
    return {'name': served.name, 'labels': served.labels, 'can_abstain': served.can_abstain,
            'can_explain': served.can_explain and len(served.labels) > 1, 'most_bytes': limits.body_bytes}


def _asked(request: Request, top_k: int) -> tuple[int, str | None]:
    asked = request.query_params
    most, explain = asked.get('top_k', str(top_k)), asked.get('explain', '0')
    is_number = most.isascii() and most.isdecimal() and 0 < len(most) < 10 and int(most) > 0
    if set(asked) - {'top_k', 'explain'} or not is_number or explain not in AGAINST:
        raise Refused(400, 'bad_request', 'The question is ?top_k=NUMBER&explain=1 (or explain=second, which shows '
                      'what speaks for the first label and not for the second).')
    return int(most), AGAINST[explain]


async def _json_body(request: Request, bodies: Bodies, limits: Limits) -> bytes:
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/json':
        raise Refused(415, 'unsupported_type', 'This address takes Content-Type: application/json.')
    return await bodies.read(request.scope, request.receive, limits.json_bytes)


async def _done(threads: Threads, work: Callable, *arguments):
    try:
        return await asyncio.wrap_future(threads.start(work, *arguments))
    except Busy:
        raise BUSY from None


def _constant(content: bytes, kind: str) -> Callable:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=None, headers={'content-type': kind})

    return answer


def _json(content: dict, status: int = 200) -> Response:
    return Response(json.dumps(content, allow_nan=False), status, media_type='application/json')


async def _not_here(request: Request, error: HTTPException) -> Response:
    word, sentence = HEADERS_OF.get(error.status_code, ('bad_request', 'This cannot be answered.'))
    return await _refused(request, Refused(error.status_code, word, sentence, dict(error.headers or {})))


async def _refused(request: Request, refused: Refused) -> Response:
    return Response(refused.body, refused.status, {'content-type': 'application/json', **refused.headers})


async def _failed(request: Request, error: Exception) -> Response:
    """Starlette raises it again, and the guards write it down."""
    return await _refused(request, FAILED)
