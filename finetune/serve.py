"""`finetune serve`: a run or an export -> a local page and an API that answer pictures."""

import errno
import importlib.util
import ipaddress
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from finetune.console import command, machine, signals
from finetune.console.errors import Error, Stopped, UsageError
from finetune.console.terminal import count, printable, say, show
from finetune.evaluation import unknown
from finetune.models import engines
from finetune.runs.run import Run, check_checkpoint
from finetune.serving import desk, served
from finetune.serving.served import Served
from finetune.serving.threads import Threads

FLAGS = command.Flags(
    'finetune serve RUN_PROJECT_OR_EXPORT [flags]',
    'Answers pictures on a page and to programs, as `finetune predict` does, on this machine alone. An export with '
    'openvino (`finetune export`) is there in a second; a run takes as long as TensorFlow. Ctrl-C stops it.')
FLAGS.group('where')
FLAGS.integer('port', 8000, 'port; 0 takes a free one', least=0, most=65535)
FLAGS.string('host', '127.0.0.1', 'address that it listens at; others than those of this machine need --token')
FLAGS.string('token', None, 'word that every request must bring (Authorization: Bearer WORD; on the page #token=WORD)')
FLAGS.string('allowed_hosts', '', 'names and ports by which it may be asked, beside its own: photos.example:8000,…')
FLAGS.group('answers')
FLAGS.string('checkpoint', 'best', 'of a run: best, last or a step (without a best one, best means last)')
FLAGS.switch('averages', True, 'of a run: use the moving averages of the weights where it has them')
FLAGS.integer('top_k', 3, 'labels a picture where a request does not say, the most probable first', least=1)
FLAGS.number('keep', unknown.KEEP, 'of a run: share of real pictures that get their label; what looks stranger is '
             '`unknown`', least=0.01, most=0.9999)
FLAGS.switch('abstain', True, 'of a run: answer `unknown` at all, where it knows what its pictures look like')
FLAGS.choice('engine', None, engines.ENGINES, f'of a run: {engines.HELP}')
FLAGS.group('limits')
FLAGS.integer('max_bytes', 20 << 20, 'of a picture', least=1, most=1 << 28)
FLAGS.integer('max_pixels', 50_000_000, 'of a picture', least=1)
OF_A_RUN = ('checkpoint', 'averages', 'keep', 'abstain', 'engine')
LEAST_TOKEN = 8  # Characters.
ALL_BODIES = 256 << 20  # Bytes of requests that are being read, together.


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(FLAGS, serve, argv)


def serve(flags: SimpleNamespace) -> None:
    """Takes the port, opens what is to be served, and answers until a signal comes."""
    path, names = _check_usage(flags)
    from finetune.serving import connections, guards, routes  # Not before it is known that Starlette is there.

    with signals.raised(), _listening(connections, flags) as listener:
        port = listener.getsockname()[1]
        desk.keep_memory_small()
        opened = _opened(path, flags)
        say(f'{opened.about}; {_about_answers(opened, flags)}')
        cores = machine.cores()
        told_of = desk.desk(opened, flags.max_pixels, cores)
        limits = guards.Limits(body_bytes=flags.max_bytes, all_bodies_bytes=max(ALL_BODIES, 4 * flags.max_bytes))
        app = routes.application(
            opened, told_of, Threads(2 * cores, most=4 * cores), limits, min(flags.top_k, len(opened.labels)))
        hosts = frozenset(_with_port(name, port) for name in names)
        number = connections.serve(
            guards.guarded(app, hosts, flags.token, limits), listener, limits,
            lambda: _tell(opened, flags, _with_port(names[0], port)))
        told_of.network.acquire(timeout=0.5)  # Held for good: a network that computes must not be torn down.
    raise Stopped('stopped', number)


def _check_usage(flags: SimpleNamespace) -> tuple[Path, list[str]]:
    """What is to be served, and the names by which it may be asked, the one to be shown first."""
    if len(flags.arguments) != 1:
        raise UsageError(f'one run, project or export is expected, and {len(flags.arguments)} were named: '
                         '`finetune serve RUN`')
    check_checkpoint(flags.checkpoint)
    missing = [name for name in ('starlette', 'uvicorn') if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"finetune serve needs what is not installed: pip install {' '.join(missing)} "
                         "(or 'finetune[serve]')")
    path = Path(command.expanded(flags.arguments[0]))
    if served.is_export(path):
        for name in OF_A_RUN:
            if name in flags.given:
                raise UsageError(f'--{name} is for runs: in an export it was decided by `finetune export`')
    elif not Run.exists(path):
        raise Error(f'{printable(path)} is no run, project or export: it has neither recipe.json nor model.json. Give '
                    'what `finetune train`, `finetune PHOTOS` or `finetune export` made.')
    return path, _names(flags)


def _names(flags: SimpleNamespace) -> list[str]:
    try:
        address = ipaddress.ip_address('127.0.0.1' if flags.host == 'localhost' else flags.host.strip('[]'))
    except ValueError:
        raise UsageError(f'--host={printable(flags.host)} is no address: expected 127.0.0.1, one of this machine, or '
                         '0.0.0.0 for all of them') from None
    flags.host = str(address)
    others = [name.strip().lower() for name in flags.allowed_hosts.split(',') if name.strip()]
    if any(set(name) & set('/@ \\') or not name.isascii() for name in others):
        raise UsageError(f'--allowed_hosts={printable(flags.allowed_hosts)} is not understood: expected names as '
                         'browsers ask for them, photos.example or photos.example:8000, joined by commas')
    _check_token(flags, address)
    if address.is_unspecified and not others:
        raise UsageError(f'--host={flags.host} is reached by many names: give those that people will type, as '
                         f'--allowed_hosts={socket.gethostname().lower()}')
    own = [] if address.is_unspecified else [f'[{address}]' if address.version == 6 else str(address)]
    here = ['localhost', '127.0.0.1', '[::1]'] if address.is_loopback or address.is_unspecified else []
    return [*own, *others, *here]


def _check_token(flags: SimpleNamespace, address) -> None:
    if flags.token is None and not address.is_loopback:
        raise UsageError(f'--host={flags.host} lets everyone who reaches this machine ask, in plain text: give a word '
                         f'that they must know, as --token={secrets.token_urlsafe(16)}')
    if flags.token is not None and not (
            len(flags.token) >= LEAST_TOKEN and flags.token.isascii() and flags.token.isprintable()
            and ' ' not in flags.token):
        raise UsageError(f'--token must have at least {LEAST_TOKEN} characters of ASCII and no blanks, as '
                         f'--token={secrets.token_urlsafe(16)}')


def _with_port(name: str, port: int) -> str:
    """As a Host header has it: without the port where that is 80."""
    has_port = name.rpartition(':')[2].isdecimal() and not name.endswith(']')
    return name if has_port or port == 80 else f'{name}:{port}'


def _listening(connections, flags: SimpleNamespace) -> socket.socket:
    try:
        return connections.listening(flags.host, flags.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Error(f'port {flags.port} is taken by another program: name another one with --port, or 0 for any '
                        'that is free.') from None
        raise Error(f'--host={flags.host} --port={flags.port} cannot be listened at: {error.strerror}.') from None


def _opened(path: Path, flags: SimpleNamespace) -> Served:
    if served.is_export(path):
        return served.of_export(path)
    return served.of_run(path, flags.checkpoint, flags.averages, flags.keep if flags.abstain else None, flags.engine)


def _about_answers(opened: Served, flags: SimpleNamespace) -> str:
    return (f'pictures of at most {count(flags.max_bytes, "byte")} and {count(flags.max_pixels, "pixel")}'
            + ('; answers `unknown` too' if opened.can_abstain else ''))


def _tell(opened: Served, flags: SimpleNamespace, name: str) -> None:
    if not ipaddress.ip_address(flags.host).is_loopback:
        say(f'--host={flags.host}: whoever reaches this machine and knows the token can ask; there is no encryption, '
            'so that those in between can read it.')
    show(f'http://{name}/' + (f'#token={flags.token}' if flags.token else ''))
    say(f'The page is there; programs POST a picture to /predict, or ask /v1/models/{opened.name}:predict and '
        f'/v2/models/{opened.name}/infer. Ctrl-C stops.')


if __name__ == '__main__':
    sys.exit(main())
