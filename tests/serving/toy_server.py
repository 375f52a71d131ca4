"""A server in a thread of the test, of a network that knows colours."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np

from finetune.pictures import quick_views
from finetune.serving import connections, desk, guards, routes
from finetune.serving.served import Said, Served
from finetune.serving.threads import Threads
from tests.serving.asking import Server

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
