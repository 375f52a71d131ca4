"""docs/tutorial.ipynb does what it says, in a kernel of its own; and what else is of notebooks."""

import json
import re
from pathlib import Path

import pytest

from tests.test_docs import anchors

HOME = Path(__file__).parents[1]
TUTORIAL = HOME / 'docs/tutorial.ipynb'
SECONDS_A_CELL = 400
REASON = 'nbclient, nbformat and ipykernel, of the extra dev, are not all installed'


def cells() -> list[dict]:
    return json.loads(TUTORIAL.read_text())['cells']


def test_the_tutorial_is_kept_without_what_it_printed():
    """That is of one machine, and changes with every run."""
    code = [cell for cell in cells() if cell['cell_type'] == 'code']
    assert len(code) > 5 and not any(cell['outputs'] or cell['execution_count'] for cell in code)


def test_every_link_of_the_tutorial_leads_to_something():
    text = '\n'.join(''.join(cell['source']) for cell in cells() if cell['cell_type'] == 'markdown')
    links = [link.partition('#')[::2] for link in re.findall(r'\]\(([^)\s]+)', text)]
    assert links and all(not anchor or anchor in anchors(TUTORIAL.parent / path) for path, anchor in links)


BAR = """
from finetune.console.terminal import Progress, say
with Progress('Working', 3, 'things') as progress:
    progress.advance()
    say('a remark')
"""


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_what_is_said_beside_it(monkeypatch):
    nbformat, nbclient = (pytest.importorskip(name, reason=REASON) for name in ('nbformat', 'nbclient'))
    pytest.importorskip('ipywidgets', reason='ipywidgets, of the extra dev, is not installed')
    monkeypatch.setenv('PYTHONPATH', str(HOME))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BAR)])
    nbclient.NotebookClient(notebook, timeout=SECONDS_A_CELL, kernel_name='python3').execute()
    assert 'a remark' in str(notebook.cells[0].outputs)
    assert 'Working' in str(notebook.metadata['widgets'])


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    nbformat, nbclient, _ = (pytest.importorskip(name, reason=REASON) for name in ('nbformat', 'nbclient', 'ipykernel'))
    monkeypatch.setenv('PYTHONPATH', str(HOME))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}})
    client.execute()  # Raises for a cell that ends in an exception.
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    told = '\n'.join(output.get('text', '') for output in outputs)
    assert 'contradiction: ' in told and 'misplaced.jpg: the same picture in two classes' in told
    assert re.search(r'precision@1 = 0\.\d{3}, 95 % interval', told)
    assert re.search(r'\n- unknown 0\.\d+ None\n- None None not_an_image', told)
    assert re.search(r'solved .*by_steps', told) and 'Did you mean pretrained?' in told
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 2
    work, = tmp_path.glob('finetune_*')
    assert (work / 'project/report.html').exists() and (work / 'exported/README.md').exists()
