"""A real browser, where the machine has one: what the eye, a phone and a screen reader meet."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
GRAVE = 'serious', 'critical'
CAMERA = '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'  # A green one, which asks nobody.


@pytest.fixture
def browser():
    if not CHROMIUM:
        pytest.skip('no Chromium on this machine')
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', *CAMERA])
        yield opened
        opened.close()


@pytest.fixture
def grave_faults_of():
    """A page -> what keeps people with other eyes or hands out of it, as axe-core finds it."""
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='axe-playwright-python is not installed')

    def faults(page) -> list[tuple[str, str]]:
        found = axe.Axe().run(page).response['violations']
        return [(fault['id'], fault['nodes'][0]['html']) for fault in found if fault['impact'] in GRAVE]

    return faults


def fits(page) -> bool:
    """Nothing has to be moved aside to be read."""
    return page.evaluate('document.documentElement.scrollWidth <= innerWidth')
