"""The report in a real browser, where there is one: what the eye, a phone, a printer and a screen reader meet."""

import pytest

from finetune.reporting import report
from tests import toy_report
from tests.browsing import fits

LABELS = ('background', *(f'class_{"x" * 30}_{number}' for number in range(12)))

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path):
    toys = toy_report.contents(tmp_path, LABELS, train=4, validation=3, most=5)
    report.write(tmp_path / 'report.html', toys)
    return tmp_path / 'report.html'


def test_it_opens_without_a_network_fits_a_phone_and_is_open_to_everyone(path, browser, grave_faults_of):
    for width, colours in ((1200, 'light'), (1200, 'dark'), (390, 'light'), (390, 'dark'), (360, 'light')):
        page = browser.new_page(viewport={'width': width, 'height': 800}, color_scheme=colours)
        fetched, said = [], []
        page.on('request', lambda request, to=fetched: to.append(request.url))
        page.on('console', lambda message, to=said: to.append(message.text))
        page.goto(path.as_uri())
        assert [url for url in fetched if not url.startswith('data:')] == [path.as_uri()] and not said
        assert fits(page), f'it overflows at {width} px'
        assert page.evaluate('[...document.images].every(image => image.naturalWidth > 0)')
        assert not grave_faults_of(page)
        page.close()


def test_it_can_be_printed(path, browser):
    page = browser.new_page()
    page.goto(path.as_uri())
    page.emulate_media(media='print')
    page.set_viewport_size({'width': 700, 'height': 1000})  # Of A4 between its margins.
    assert fits(page)
    assert page.pdf(format='A4').startswith(b'%PDF')
