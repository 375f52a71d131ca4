"""Writes report.html: one file that opens without a network, a script, or this program."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from finetune.console.files import write_atomically
from finetune.console.terminal import printable
from finetune.reporting.contents import Contents

HERE = Path(__file__).parent


def write(path: Path, contents: Contents) -> None:
    """The file is the old report or the new one, whole. The pictures are read from the records."""
    write_atomically(Path(path), render(contents).encode())


def render(contents: Contents) -> str:
    """The page as HTML. Every name in it went through `printable`, and then through the template's escapes."""
    template = _environment().get_template('report.html')
    return template.render(contents=contents, style=Markup((HERE / 'style.css').read_text()))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters['name'] = printable
    return environment
