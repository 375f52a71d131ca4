"""Calls that must not occur anywhere in the package: they run programs from data, hang, or hide damage: R20."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'finetune'
MODULES = {
    'pickle': 'runs programs', 'dill': 'runs programs', 'cloudpickle': 'runs programs', 'marshal': 'runs programs',
    'shelve': 'runs programs', 'yaml': 'may run programs', 'tarfile': 'writes where the archive says',
    'zipfile': 'writes where the archive says',
}
MAY_IMPORT = {
    'building/archives.py': {'tarfile', 'zipfile'},  # It reads them, and writes where it decides itself.
    'evaluation/answers.py': {'zipfile'}, 'exporting/mediapipe.py': {'zipfile'},  # They write them.
}
CALLS = {
    'extract': 'writes where the archive says', 'extractall': 'writes where the archive says',
    'eval': 'runs programs', 'exec': 'runs programs', '__import__': 'runs programs',
    'system': 'hands names to a shell', 'popen': 'hands names to a shell', 'load_model': 'runs programs from the file',
    'model_from_json': 'runs programs', 'deserialize_keras_object': 'runs programs', 'from_config': 'runs programs',
    'enable_unsafe_deserialization': 'runs programs', 'load_weights': 'reads what weights.py must judge first',
    'ignore_errors': 'drops the rest of a shard in silence',
    'mktemp': 'a name that another may take first',
}
ARGUMENTS = {  # A call with this argument, unless it has this value.
    'shell': False, 'safe_mode': True, 'allow_pickle': False, 'try_recover_truncated': False,
    'expand_animations': False, 'custom_objects': None, 'extract': False,
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob('*.py'))


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, 'id', '')


@pytest.mark.parametrize('path', sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_programs_from_data_or_hides_damage(path):
    file = str(path.relative_to(PACKAGE))
    for node in ast.walk(ast.parse(path.read_text())):
        for module in imported(node):
            is_let = module not in MODULES or module in MAY_IMPORT.get(file, ())
            assert is_let, f'{file} imports {module}, which {MODULES[module]}'
        if isinstance(node, ast.Call):
            check_call(file, node)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split('.')[0] for alias in node.names]
    return [node.module.split('.')[0]] if isinstance(node, ast.ImportFrom) and node.module else []


def check_call(file: str, call: ast.Call) -> None:
    name, line = name_of(call), f'{file}:{call.lineno}'
    assert name not in CALLS, f'{line} calls {name}, which {CALLS[name]}'
    for argument in call.keywords:
        if argument.arg in ARGUMENTS:
            harmless = isinstance(argument.value, ast.Constant) and argument.value.value == ARGUMENTS[argument.arg]
            assert harmless, f'{line} gives {argument.arg}; it may only be {ARGUMENTS[argument.arg]}'
    called = ast.unparse(call.func)
    if called == 'Image.open':
        named = any(argument.arg == 'formats' for argument in call.keywords)
        assert named, f'{line}: Image.open without formats tries Ghostscript and others on a file that asks for it'
    assert not called.endswith('gfile.glob'), f'{line}: shard names are read from dataset.json, never globbed'
