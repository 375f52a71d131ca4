"""Imports point down: which room may know of which, and why. docs/architecture.md draws the same house."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'finetune'

ROOMS = {  # From the ground up. A room imports itself and the rooms named here, all of which stand above it.
    'console': (),  # The person and the machine: everything else may speak to them.
    'pictures': ('console',),  # One picture, whoever asks: a build, a training, a server.
    'models': ('console',),  # Arrays in, arrays out: a network must work without records, runs or flags.
    'records': ('pictures', 'console'),  # What is read from them is pictures; what is done with it, others know.
    'runs': ('records', 'pictures', 'models', 'console'),  # To open a run takes no training: eval, predict, export.
    'features': ('records', 'pictures', 'models', 'console'),  # Of a network and records; of no run, so that all share.
    'evaluation': ('runs', 'records', 'models', 'console'),  # A run's answers, and what they are worth.
    'exporting': ('evaluation', 'runs', 'records', 'pictures', 'models', 'console'),  # A run elsewhere, proven.
    'checking': ('evaluation', 'features', 'runs', 'records', 'console'),  # Findings, whoever computed the features.
    'building': ('records', 'pictures', 'console'),  # Needs no network, and so no TensorFlow.
    'predicting': (  # New pictures: asked about as a build asks, answered as records are, put where they belong.
        'evaluation', 'building', 'runs', 'records', 'pictures', 'models', 'console'),
    'training': ('evaluation', 'features', 'runs', 'records', 'models', 'console'),
    'reporting': (  # Shows what all of them found, and finds nothing itself.
        'checking', 'evaluation', 'features', 'runs', 'records', 'models', 'pictures', 'console'),
    'serving': (  # What predicts, for whoever asks over HTTP, and the report's picture of why.
        'reporting', 'predicting', 'exporting', 'evaluation', 'runs', 'records', 'pictures', 'models', 'console'),
    'projects': (  # The steps of a project, in values; finetune/project.py has their order.
        'training', 'building', 'checking', 'evaluation', 'features', 'runs', 'records', 'models', 'console'),
}
FRONT_DOORS = {'__main__', 'interface'}  # Of the shell and of Python: they find the verbs, and are imported by none.
VERBS = {path.stem for path in PACKAGE.glob('*.py')} - {'__init__', *FRONT_DOORS}  # Each may enter every room.


def files() -> dict[str, Path]:
    """By what imports call them, without `finetune.`: 'train', 'records.batches'."""
    paths = (path for path in sorted(PACKAGE.rglob('*.py')) if path.name != '__init__.py')
    return {'.'.join(path.relative_to(PACKAGE).with_suffix('').parts): path for path in paths}


def imported(path: Path) -> set[str]:
    """What a file names of this package, in an import or as a lazy module, without `finetune.`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'finetune':
            names.update(f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'LazyModule':
            names.add(node.args[0].value if isinstance(node.args[0], ast.Constant) else '')
    return {name.removeprefix('finetune.') for name in names if name.startswith('finetune.')}


def room_of(name: str) -> str:
    return name.partition('.')[0]


@pytest.mark.parametrize('file', files())
def test_a_file_imports_only_from_its_room_and_the_rooms_below(file):
    room = room_of(file)
    if room in VERBS | FRONT_DOORS:
        return
    assert room in ROOMS, f'finetune/{room} is a new room: give it a line in ROOMS here and in docs/architecture.md'
    for other in imported(files()[file]):
        assert room_of(other) in (room, *ROOMS[room]), (
            f'finetune/{file.replace(".", "/")}.py imports {other}, but {room} may know only of '
            f'{", ".join(ROOMS[room]) or "itself"}. Move the line that needs it up, hand it a value, or move what it '
            'needs down.')


@pytest.mark.parametrize('verb', sorted(VERBS))
def test_a_verb_never_imports_a_verb(verb):
    others = {room_of(name) for name in imported(files()[verb])} & VERBS - {verb}
    assert not others, f'{verb} imports {", ".join(others)}: what two verbs share belongs into a room'


@pytest.mark.parametrize('file', sorted(set(files()) - FRONT_DOORS))
def test_nobody_in_the_house_comes_in_by_a_front_door(file):
    others = {room_of(name) for name in imported(files()[file])} & FRONT_DOORS
    assert not others, f'{file} imports {", ".join(others)}: what it needs from there belongs into a room'


def test_rooms_stand_above_what_they_import():
    """So that there is no circle."""
    order = list(ROOMS)
    for room, below in ROOMS.items():
        assert all(order.index(other) < order.index(room) for other in below), room


def test_every_room_exists_and_says_what_lives_there():
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((PACKAGE / room / '__init__.py').read_text())), room
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != '__pycache__'} == set(ROOMS)
