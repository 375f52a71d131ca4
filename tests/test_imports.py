"""Imports point down. The rooms of the house, floor by floor; CONTRIBUTING.md says why."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'finetune'

FLOORS = [
    ['errors', 'files', 'lazy', 'models.layers', 'schedules', 'signals', 'tfrecord'],
    ['averages', 'examples', 'terminal', 'command', 'engines', 'jpeg', 'png', 'images', 'inference', 'machine',
     'metrics', 'models.all_cnn', 'models.alexnet', 'models.auxiliary', 'models.cuts', 'models.densenet_bc',
     'models.mnist_cnn', 'models.resnet_cifar', 'optimize', 'regression', 'towers', 'workers'],
    ['catalogue', 'drawings', 'gate', 'logs', 'models.zoo', 'records', 'staging', 'weights'],
    ['batches', 'histograms', 'models.classifier', 'recipe', 'results', 'sources', 'sources.labels'],
    ['features', 'state', 'sources.folders', 'sources.pixels', 'conversion'],
    ['feeds', 'runs', 'sources.cifar10', 'sources.mnist_csv', 'sources.tfds'],
    ['briefing', 'pretrained', 'plan'],
    ['journal'],
    ['account'],
    ['build', 'eval', 'predict', 'recipes', 'train'],
    ['__main__'],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = {  # Never, however far down: what a room must know nothing of.
    'models.': ('records', 'runs', 'command', 'recipe', 'batches'),
    'gate': ('models.', 'records'),
    'records': ('models.', 'recipe', 'runs'),
    'images': ('models.',),
}


def rooms() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        name = '.'.join(part for part in parts if part != '__init__') if len(parts) > 1 else parts[0]
        if name not in ('__init__', 'models'):
            found[name] = path
    return found


def imported(path: Path) -> set[str]:
    """The rooms of this package that a file names in an import, or as a lazy module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split('.')[0] == 'finetune':
            below = [f'{node.module}.{alias.name}' for alias in node.names]
            names.update(name if name.removeprefix('finetune.') in FLOOR else node.module for name in below)
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'LazyModule':
            names.add(node.args[0].value if isinstance(node.args[0], ast.Constant) else '')
    return {name.removeprefix('finetune.') for name in names if name.startswith('finetune.')}


@pytest.mark.parametrize('room', rooms())
def test_a_room_imports_only_from_floors_below(room):
    assert room in FLOOR, f'finetune/{room}.py has no floor: add it to FLOORS here and to the tree in the README'
    for other in imported(rooms()[room]):
        assert FLOOR[other] < FLOOR[room], (
            f'{room} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]}). Imports point down: move the line '
            f'that needs {other} up, or what it needs from there down.')


@pytest.mark.parametrize('room', rooms())
def test_a_room_does_not_know_its_strangers(room):
    for prefix, strangers in STRANGERS.items():
        if room == prefix or (prefix.endswith('.') and room.startswith(prefix)):
            for other in imported(rooms()[room]):
                assert not any(other == s or (s.endswith('.') and other.startswith(s)) for s in strangers), (
                    f'{room} must not know of {other}: hand it values instead.')


def test_every_room_on_a_floor_exists():
    assert set(FLOOR) == set(rooms())
