"""What the documents name is there: links, files, flags, tools, rooms; and the README stays short."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from finetune.__main__ import VERBS
from tests.test_imports import ROOMS

HOME = Path(__file__).parents[1]
DOCS = [HOME / 'README.md', HOME / 'CONTRIBUTING.md', *sorted((HOME / 'docs').glob('*.md'))]
LINES_OF_README, BYTES_OF_PICTURE = 110, 150_000
OTHER_FLAGS = {  # In no help of a verb, or of TensorBoard, SLURM or curl.
    'help', 'debug', 'completion', 'pretrained_model_checkpoint_path', 'logdir', 'signal', 'requeue', 'data'}
of_every_document = pytest.mark.parametrize('document', DOCS, ids=lambda path: path.name)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(verb, flags) of every `finetune VERB --flag …`, a line that ends in a backslash with the one that follows."""
    lines = text.replace('\\\n', ' ').splitlines()
    found = (re.findall(r'finetune[ .](\w+)( [^`]*)?', line) for line in lines)
    return [(verb, re.findall(r'--(\w+)', rest)) for match in found for verb, rest in match if verb in VERBS]


def shown_flags(verb: str) -> set[str]:
    return set(re.findall(r'^  --(\w+)', importlib.import_module(f'finetune.{verb}').FLAGS.help(), re.MULTILINE))


def tool_flags() -> set[str]:
    code = '\n'.join(path.read_text() for path in (HOME / 'tools').rglob('*.py'))
    return set(re.findall(r"(?:'--|flags\.\w+\(')(\w+)'", code))


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r'^#+ (.*)', document.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@of_every_document
def test_every_link_leads_to_something(document):
    for target in re.findall(r'\]\(([^)\s]+)\)', document.read_text()):
        if target.startswith('http'):
            continue
        path, _, anchor = target.partition('#')
        there = document.parent / path if path else document
        assert there.exists(), f'{document.name} links to {target}'
        assert not anchor or anchor in anchors(there), f'{document.name} links to {target}: no such heading'


@of_every_document
def test_every_command_knows_the_flags_that_it_is_shown_with(document):
    for verb, flags in commands(document.read_text()):
        unknown = set(flags) - shown_flags(verb) - OTHER_FLAGS
        assert not unknown, f'{document.name} shows `finetune {verb}` with {unknown}'


@of_every_document
def test_every_flag_is_one_of_a_verb_or_a_tool(document):
    known = tool_flags().union(OTHER_FLAGS, *map(shown_flags, [*VERBS, 'project']))
    known |= {f'no{flag}' for flag in known}  # A switch, turned off.
    unknown = set(re.findall(r'(?<![\w-])--(\w+)', document.read_text())) - known
    assert not unknown, f'{document.name} names {unknown}'


@of_every_document
def test_every_module_that_is_run_exists(document):
    for name in re.findall(r'python -m ([\w.]+)', document.read_text()):
        assert name == 'pytest' or importlib.util.find_spec(name), f'{document.name} runs {name}'


@of_every_document
def test_every_file_of_the_project_that_is_named_exists(document):
    named = re.findall(r'`((?:finetune|tools|tests|docs)/[\w/.*]+)`', document.read_text())
    missing = [name for name in named if not list(HOME.glob(name))]
    assert not missing, f'{document.name} names {missing}'


def test_the_table_of_rooms_is_the_one_that_imports_are_held_to():
    rows = re.findall(r'^\| `(\w+)/` \| [^|]+ \| ([^|]+) \| [^|]+ \|$', (HOME / 'docs/architecture.md').read_text(),
                      re.MULTILINE)
    assert {room: tuple(re.findall(r'`(\w+)`', below)) for room, below in rows} == ROOMS


def test_every_reason_and_field_is_explained():
    """A reason that stands in somebody's skipped.csv, or a field of a record, has its line in docs/files.md."""
    code = '\n'.join(path.read_text() for path in (HOME / 'finetune').rglob('*.py'))
    told = (HOME / 'docs/files.md').read_text()
    reasons = re.findall(r"(?:Reject\(|Skip\([^,()]+, )'(\w+)'", code)
    fields = re.findall(r"'(image/[\w/]+)':", code)
    assert len(set(reasons)) > 10 and len(set(fields)) > 5
    assert [name for name in dict.fromkeys(reasons + fields) if f'`{name}`' not in told] == []


def test_the_readme_is_read_in_two_minutes():
    assert len((HOME / 'README.md').read_text().splitlines()) <= LINES_OF_README
    assert all(path.stat().st_size < BYTES_OF_PICTURE for path in (HOME / 'docs').glob('*.jpg'))
