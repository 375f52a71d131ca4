import dataclasses
import html.parser
import itertools
import unicodedata

import numpy as np
import pytest

from finetune.building.sources.labels import label_of
from finetune.checking import findings
from finetune.console.terminal import printable
from finetune.evaluation import metrics
from finetune.models import zoo
from finetune.reporting import gallery, report, sentences
from finetune.reporting.contents import Contents
from tests import toy, toy_net, toy_report, toy_run
from tools.torture.names import BREAKING, NAMES

MOST_BYTES = 3_000_000
SECTIONS = ['Summary', 'How good it is', 'What is mixed up', 'The surest mistakes', 'Probable label errors',
            'Duplicates and leaks', 'How far to believe it', 'What more pictures would bring', 'The training',
            'The data', 'How to make it again']
VOID = {'meta', 'img', 'rect', 'circle', 'path'}  # Of the elements that are used here, those without an end.


class Page(html.parser.HTMLParser):
    """The elements of a page in order, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.headings, self.open = '', [], []
        self.feed(text)
        self.close()
        assert not self.open, f'not closed: {self.open}'

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ('h1', 'h2', 'h3', 'h4'):
            self.headings.append((int(tag[1]), ''))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ('h1', 'h2', 'h3', 'h4'):
            level, text = self.headings.pop()
            self.headings.append((level, text + data))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(contents: Contents) -> Page:
    return Page(report.render(contents))


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE))
        return toy_report.contents(tmp_path_factory.mktemp('toys'))


@pytest.fixture(scope='module')
def page(toys):
    return page_of(toys)


# What it is ----------------------------------------------------------------------------------------------


def test_the_sections_stand_in_reading_order_and_the_table_of_contents_leads_to_each(page):
    assert [text for level, text in page.headings if level == 2] == SECTIONS
    targets = [attributes['href'] for attributes in page.all('a')]
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(set(ids)) == len(ids) and {target.removeprefix('#') for target in targets} == set(ids)


def test_headings_are_in_order(page):
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))


def test_nothing_is_fetched_and_nothing_runs(page):
    assert not {'script', 'link', 'iframe', 'object', 'embed', 'form'} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith('on')]
        assert attributes.get('src', 'data:').startswith('data:image/jpeg;base64,' if tag == 'img' else 'data:')
        assert attributes.get('href', '#').startswith('#')
    style = (report.HERE / 'style.css').read_text()
    assert 'url(' not in style and '@import' not in style
    policy = next(each['content'] for each in page.all('meta') if each.get('http-equiv'))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_and_drawings_are_told_in_words(page):
    assert page.all('img') and all(picture['alt'].strip() for picture in page.all('img'))
    charts = [drawing for drawing in page.all('svg') if drawing.get('aria-hidden') != 'true']
    assert len(charts) == 6 and all(each['role'] == 'img' and len(each['aria-label']) > 40 for each in charts)


def test_tables_say_what_their_rows_and_columns_are_and_can_be_scrolled_by_keyboard(page):
    assert page.all('th') and all(cell['scope'] in ('row', 'col', 'colgroup') for cell in page.all('th'))
    boxes = [attributes for _, attributes in page.elements if attributes.get('class') == 'scroll']
    assert len(boxes) >= len(page.all('table'))
    assert all(box['tabindex'] == '0' and box['role'] == 'region' and box['aria-label'] for box in boxes)


# Names and numbers ---------------------------------------------------------------------------------------


def test_hostile_names_are_shown_as_text(tmp_path):
    labels = ('background', *sorted(map(label_of, NAMES)))
    toys = toy_report.contents(tmp_path, labels, train=2, validation=2)
    names = [NAMES[i % len(NAMES)] + b'/' + NAMES[i % len(NAMES)] for i in range(len(toys.outputs.filenames))]
    album = dataclasses.replace(toys.checked.album, filenames=names * 2)
    page = page_of(dataclasses.replace(
        toys, name=NAMES[1].decode(), outputs=dataclasses.replace(toys.outputs, filenames=names),
        checked=dataclasses.replace(toys.checked, album=album), commands=['finetune "<b>" \x1b[31m']))
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert not [c for c in page.text if unicodedata.category(c) in BREAKING and c != '\n']
    shown = ' '.join(page.text.split())
    for label in labels[1:]:
        assert ' '.join(printable(label).split()) in shown
    assert page.headings[0][1] == '<script>alert(1)<|script>'


ALLOWED = {
    'html', 'head', 'meta', 'title', 'style', 'body', 'header', 'nav', 'main', 'section', 'div', 'h1', 'h2', 'h3', 'h4',
    'p', 'ul', 'ol', 'li', 'a', 'strong', 'span', 'figure', 'figcaption', 'img', 'table', 'caption', 'thead', 'tbody',
    'tfoot', 'tr', 'th', 'td', 'pre', 'code', 'svg', 'desc', 'rect', 'circle', 'path', 'text'}


def test_many_classes_and_findings_fit_into_3_megabytes(tmp_path, monkeypatch):
    noise = toy.encoded(toy.Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)))
    monkeypatch.setattr(toy_run, 'picture', lambda place: noise)
    labels = ('background', *(f'a class with a rather long name {number}' for number in range(100)))
    toys = toy_report.contents(tmp_path, labels, train=4, validation=3, most=200)
    text = report.render(toys)
    assert len(text.encode()) < MOST_BYTES
    page = Page(text)
    pairs = sum(gallery.MOST_OF_KIND[kind] for kind in findings.PAIRS)
    assert len(page.all('img')) > 2 * pairs + 60
    assert page.text.count('more in findings.csv') == 1 + len(findings.PAIRS) + len(findings.ODD) + 1


def test_the_epoch_that_was_chosen_on_the_same_pictures_is_called_that(toys):
    of_scores = dataclasses.replace(toys, candidates=())
    assert 'chose this epoch as the best of 6: expect a little less' in sentences.how_good(of_scores)
    tested = dataclasses.replace(of_scores, subset='test', found={})
    assert 'test pictures, which no training has looked at' in sentences.how_good(tested)
    solved = dataclasses.replace(of_scores, found={})
    assert 'validation pictures, which did not train it' in sentences.how_good(solved)
    known = dataclasses.replace(of_scores, subset='train', found={})
    assert 'says nothing of others' in sentences.how_good(known)
    folds = dataclasses.replace(known, measured_on='out of fold over 24 training pictures')
    assert 'measured out of fold over 24' in sentences.how_good(folds)


def test_what_harms_most_is_looked_at_first(toys):
    advice = [each.section for each in sentences.look_first(toys)]
    assert advice[0] == 'duplicates' and 'label-errors' in advice and len(advice) == sentences.MOST_TO_LOOK_AT
    assert sentences.first(toys).startswith('2 pairs of pictures')
    unchecked = sentences.look_first(dataclasses.replace(toys, checked=None))
    assert unchecked and {each.section for each in unchecked} <= {'mixed-up', 'how-good'}
    assert sentences.first(Contents('toys', toys.data)) == 'Nothing stands out.'


def test_mistakes_are_as_sure_as_predict_says(toys, page):
    """The toy run has no temperature."""
    surest = metrics.worst_mistakes(toys.outputs.labels, toys.outputs.logits, 1)[0]
    assert f'{surest.probability:.1%} sure' in page.text


def test_a_mistake_that_predict_would_not_make_is_called_that(toys):
    wrong = metrics.worst_mistakes(toys.outputs.labels, toys.outputs.logits, 1)[0].index
    familiarity = np.ones(len(toys.outputs.labels))
    familiarity[wrong] = 0.04
    page = page_of(dataclasses.replace(toys, outputs=dataclasses.replace(toys.outputs, extra=familiarity)))
    assert page.text.count('predict would answer “unknown”') in (1, 2)  # Among the surest, and among those of its pair.


# What a project lacks ------------------------------------------------------------------------------------


def test_a_project_of_records_alone_has_a_report(toys):
    page = page_of(Contents('toys', toys.data))
    assert [text for level, text in page.headings if level == 2] == SECTIONS
    assert page.text.count('No network was measured yet') >= 4 and page.text.count('were not checked') >= 3


@pytest.mark.parametrize('lacking', [
    {'checked': None}, {'loaded': None}, {'run': None, 'loaded': None}, {'found': {}}, {'candidates': ()},
    {'history': ()}, {'commands': ()}, {'scores': None, 'outputs': None},
], ids=lambda lacking: ' and '.join(lacking))
def test_whatever_is_missing_the_rest_is_there(toys, lacking):
    page = page_of(dataclasses.replace(toys, **lacking))
    assert [text for level, text in page.headings if level == 2] == SECTIONS


def test_a_network_without_a_mistake_has_a_report(toys):
    outputs = dataclasses.replace(toys.outputs, logits=np.eye(4, dtype=np.float32)[toys.outputs.labels] * 9)
    scores = metrics.score(outputs.labels, outputs.logits, toys.data.labels)
    page = page_of(dataclasses.replace(toys, outputs=outputs, scores=scores))
    assert 'There was no mistake.' in page.text and 'No picture was taken for another class.' in page.text


def test_data_without_a_finding_has_a_report(toys):
    clean = dataclasses.replace(toys.checked, found=[], wrong_labels=(0.0, 0.0), curve=None, shortcut=None)
    page = page_of(dataclasses.replace(toys, checked=clean))
    assert 'No picture stands there twice.' in page.text and 'No picture is odd.' in page.text


def test_the_file_is_whole_or_not_there(toys, tmp_path):
    report.write(tmp_path / 'report.html', toys)
    assert [path.name for path in tmp_path.iterdir()] == ['report.html']
    assert (tmp_path / 'report.html').read_text().rstrip().endswith('</html>')
