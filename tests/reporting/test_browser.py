"""The report in a real browser, where there is one: what the eye, a phone, a printer and a screen reader meet."""

import shutil

import pytest

from finetune.reporting import report
from tests import toy_report

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
LABELS = ('background', *(f'class_{"x" * 30}_{number}' for number in range(12)))
GRAVE = 'serious', 'critical'

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason='no Chromium on this machine')]


@pytest.fixture
def browser():
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield opened
        opened.close()


@pytest.fixture
def path(tmp_path):
    toys = toy_report.contents(tmp_path, LABELS, train=4, validation=3, most=5)
    report.write(tmp_path / 'report.html', toys)
    return tmp_path / 'report.html'


def test_it_opens_without_a_network_fits_a_phone_and_is_open_to_everyone(path, browser):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed')
    for width, colours in ((1200, 'light'), (1200, 'dark'), (390, 'light'), (390, 'dark'), (360, 'light')):
        page = browser.new_page(viewport={'width': width, 'height': 800}, color_scheme=colours)
        fetched, said = [], []
        page.on('request', lambda request, to=fetched: to.append(request.url))
        page.on('console', lambda message, to=said: to.append(message.text))
        page.goto(path.as_uri())
        assert [url for url in fetched if not url.startswith('data:')] == [path.as_uri()] and not said
        assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'it overflows at {width} px'
        assert page.evaluate('[...document.images].every(image => image.naturalWidth > 0)')
        faults = axe.Axe().run(page).response['violations']
        assert not [(fault['id'], fault['nodes'][0]['html']) for fault in faults if fault['impact'] in GRAVE]
        page.close()


def test_it_can_be_printed(path, browser):
    page = browser.new_page()
    page.goto(path.as_uri())
    page.emulate_media(media='print')
    page.set_viewport_size({'width': 700, 'height': 1000})  # Of A4 between its margins.
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    assert page.pdf(format='A4').startswith(b'%PDF')
