"""Files and classes with hostile names, from build to answers: R17."""

import contextlib
import csv
import io
import itertools
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from finetune import build, eval, predict, project
from finetune.building.sources.labels import label_of
from tests import toy, toy_run
from tools.torture import unless, warm

NAMES = (
    b'plain', b'<script>alert(1)<|script>', b'<img src=x onerror=alert(1)>', b'"quoted", comma;', b"it's",
    b'new\nline', b'carriage\rreturn', b'tab\there', b'\x1b[31mred\x1b]0;title\x07', b'bell\x07 \x08 \x7f',
    '\u202egpj.exe'.encode(), '\u2066isolate'.encode(), 'zero\u200bwidth'.encode(), 'line\u2028separator'.encode(),
    '\x85\x9b31m'.encode(), b'latin1_\xe9', b'\xff\xfe', b'\xed\xa0\x80', b'back\\slash \\n \\x1b', b'-rf', b'--help',
    b'=1+1', b'%s %n {x}', b'$(touch pwned);&|', b'[1-9]*?', b'[bold red]markup[|]', b' outer blanks ',
    'caf\u00e9'.encode(), unicodedata.normalize('NFD', 'caf\u00e9').encode(), '\u732b \U0001f600'.encode(),
)
BREAKING = {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}  # Categories of characters that move what stands around them.


def everywhere(place: Path, seed: int, count: int) -> Iterator[str]:
    """Every name is that of a class and of a file; everything that a verb prints or writes is checked line by line."""
    assert warm, 'it adds the toy network'
    pictures, data = place / 'pictures', place / 'data'
    _write_pictures(pictures)
    shown = _told(build.main, f'--train_directory={pictures}', f'--output_directory={data}', '--validation_percent=0',
                  '--num_threads=1')
    yield from _printed_well('build', shown)
    run = _run(place / 'run', data)
    yield from _files_of_records(data)
    flags = f'--checkpoint_dir={run}', f'--data_dir={data}', '--subset=train', '--run_once'
    yield from _printed_well('eval', _told(eval.main, *flags))
    yield from _files_of_eval(run / 'eval' / 'train')
    for form, encoding in itertools.product(((), ('--csv',), ('--jsonl',)), ('utf-8', 'ascii')):
        shown = _told(predict.main, f'--checkpoint_dir={run}', str(pictures), f'--top_k={len(NAMES)}', *form,
                      encoding=encoding)
        yield from _printed_well(f'predict {form}', shown)
        yield _one_line_a_picture(form, shown[0])
    shown = _told(predict.main, f'--checkpoint_dir={run}', '--', *(str(pictures / os.fsdecode(name)) for name in NAMES))
    yield from _printed_well('predict of names', shown)
    yield from _printed_well('predict into folders', _told(
        predict.main, f'--checkpoint_dir={run}', str(pictures), f'--sort_into={place}/sorted'))
    yield from _printed_well('a whole project', _told(
        project.main, str(pictures), f'--output={place}/project', f'--pretrained={run}', '--effort=quick',
        '--num_threads=1', '--validation_percent=0'))
    page = (place / 'project/report.html').read_text()
    yield unless('<script' not in page and '<img src=x' not in page, 'a name became a part of the report')
    links = [path.readlink() for path in (place / 'sorted').glob('*/*')]
    yield unless(sorted(links) == sorted(pictures.glob('*/*')), f'{len(links)} links do not lead to the pictures')


def _write_pictures(pictures: Path) -> None:
    """A good and a bad picture of each name in each class."""
    for number, name in enumerate(NAMES):
        folder = pictures / os.fsdecode(name)
        folder.mkdir(parents=True)
        (folder / os.fsdecode(name + b'.jpg')).write_bytes(toy.encoded(toy.picture(number)))
        (folder / os.fsdecode(b'bad ' + name + b'.jpg')).write_bytes(b'\xff\xd8 no picture ' + name)


def _run(directory: Path, data: Path) -> Path:
    labels = tuple(json.loads((data / 'dataset.json').read_text())['labels'])
    run = toy_run.start_run(directory, labels, per_class=(0, *[1] * len(NAMES)))
    toy_run.save_checkpoint(run, step=1)
    return directory


def _told(verb, *flags: str, encoding: str = 'utf-8') -> tuple[str, str]:
    """What a verb prints, on stdout and on stderr; the output of some systems takes ASCII alone."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors) for errors in ('strict', 'backslashreplace')]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        verb(flags)
        for stream in streams:
            stream.flush()
    return tuple(stream.buffer.getvalue().decode() for stream in streams)


def _printed_well(what: str, shown: tuple[str, str]) -> Iterator[str]:
    text = ''.join(shown)
    yield unless('Traceback' not in text and 'should not happen' not in text, f'{what}: {text[-300:]}')
    yield from _lines_whole(what, text)


def _lines_whole(what: str, text: str) -> Iterator[str]:
    for line in text.split('\n'):
        bad = {character for character in line if unicodedata.category(character) in BREAKING}
        yield unless(not bad, f'{what}: {line!r} holds {bad}')


def _files_of_records(data: Path) -> Iterator[str]:
    text = (data / 'skipped.csv').read_text()
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    yield unless(len(rows) == len(NAMES) == text.count('\n') - 1, f'skipped.csv: {len(rows)} rows')
    yield from _lines_whole('skipped.csv', text)
    content = json.loads((data / 'dataset.json').read_bytes().decode('ascii'))
    expected = ['background', *sorted(map(label_of, NAMES))]
    yield unless(content['labels'] == expected, f'dataset.json: {content["labels"]}')
    labels = (data / 'labels.txt').read_text().split('\n')
    yield unless(labels == [*expected[1:], ''], f'labels.txt: {labels}')


def _files_of_eval(directory: Path) -> Iterator[str]:
    text = (directory / 'mistakes.csv').read_text()
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    yield unless(len(rows) == text.count('\n') - 1 and rows, f'mistakes.csv: {len(rows)} rows')
    yield from _lines_whole('mistakes.csv', text)
    content = json.loads((directory / 'metrics.json').read_text())
    yield unless(len(content['classes']) == len(NAMES), f'metrics.json: {len(content["classes"])} classes')


def _one_line_a_picture(form: tuple, text: str) -> str:
    lines = text.splitlines()
    if form == ('--csv',):
        lines = list(csv.DictReader(lines))
        answered = [bool(row['error']) != bool(row['label_1']) for row in lines]
    else:
        answered = [bool(json.loads(line)) if form else bool(line) for line in lines]
    return unless(len(lines) == 2 * len(NAMES) and all(answered), f'predict {form}: {len(lines)} lines')
