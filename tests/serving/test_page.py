"""The page in a real browser, where there is one: a picture is given in every way, read, and nobody else is asked."""

import base64
import dataclasses
from urllib.parse import urlsplit

import pytest

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')
pytest.importorskip('playwright.sync_api', reason='playwright is not installed')

from PIL import Image
from playwright.sync_api import expect

from tests import toy
from tests.browsing import fits
from tests.serving import toy_server

pytestmark = pytest.mark.slow

SCENE = Image.new('RGB', (64, 48), 'red')
SCENE.paste((255, 0, 99), (32, 0, 64, 48))  # To the right of it something speaks for blue too.
RED = toy.encoded(SCENE)
GREY = toy.encoded(Image.new('RGB', (64, 48), 'grey'), 'TIFF')  # Of no colour, in a format that browsers do not show.
DROP = """([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), each => each.charCodeAt(0))], name));
  for (const kind of ['dragover', 'drop'])
    document.getElementById('drop').dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
}"""
PASTE = """([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), each => each.charCodeAt(0))], name, {type: 'image/jpeg'}));
  document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}));
}"""


@pytest.fixture(scope='module')
def server():
    with toy_server.running(body_bytes=100_000) as running:
        yield running


@pytest.fixture
def page(server, browser):
    opened = browser.new_page()
    opened.set_default_timeout(10_000)
    opened.goto(f'http://{server.host}/')
    expect(opened.locator('#about')).to_contain_text('toy')
    return opened


def give(page, way: str, name: str, data: bytes) -> None:
    page.evaluate(way, [name, base64.b64encode(data).decode()])


def choose(page, name: str, data: bytes) -> None:
    page.set_input_files('#file', {'name': name, 'mimeType': 'image/jpeg', 'buffer': data})


def assert_answered(page, label: str) -> None:
    expect(page.locator('#result')).to_be_visible()
    expect(page.locator('#result')).not_to_have_class('waiting')
    expect(page.locator('#trouble')).to_be_hidden()
    assert page.inner_text('#best').startswith(label)


@pytest.mark.parametrize('way', [DROP, PASTE], ids=['dropped', 'pasted'])
def test_a_picture_that_is_given_is_answered_with_what_spoke_for_it(page, way):
    give(page, way, 'a.jpg', RED)
    assert_answered(page, 'red')
    assert [row.split()[0] for row in page.locator('#labels li').all_inner_texts()] == ['red', 'blue', 'green']
    page.wait_for_selector('#explanation')
    assert page.evaluate('Promise.all([...document.images].map(image => image.decode())).then(() => true)')
    before = page.get_attribute('#explanation', 'src')
    assert 'spoke for red' in page.get_attribute('#explanation', 'alt')
    page.check('#second')
    expect(page.locator('#explained')).to_contain_text('for red and not for')
    assert page.get_attribute('#explanation', 'src') != before


def test_a_picture_from_the_camera_is_answered(page):
    page.click('#camera')
    expect(page.locator('#shoot')).to_be_focused()
    page.evaluate('new Promise(done => document.getElementById("video").requestVideoFrameCallback(() => done()))')
    page.click('#shoot')
    page.wait_for_selector('#result')
    assert not page.locator('#live').is_visible()


def test_what_is_none_of_the_labels_is_unknown_and_said_so(page):
    choose(page, 'a.tif', GREY)
    assert_answered(page, 'unknown')
    assert 'none of the labels' in page.inner_text('#remark')
    page.wait_for_selector('#not-shown')


@pytest.mark.parametrize('data, told', [
    (b'hello', 'This is no picture.'), (b'', 'This file is empty.'), (RED[:-20], 'This picture is cut short.'),
    (bytes(100_001), 'This picture is too large.'),
])
def test_a_file_that_is_no_good_is_told_and_the_next_one_answered(page, data, told):
    choose(page, 'a.jpg', RED)
    assert_answered(page, 'red')
    choose(page, 'b.jpg', data)
    page.wait_for_selector('#trouble')
    assert told in page.inner_text('#trouble') and not page.locator('#result').is_visible()
    choose(page, 'a.jpg', RED)
    assert_answered(page, 'red')


def test_a_label_is_text_whatever_it_says(browser):
    hostile = '<img src=x onerror=document.title=1>'

    def said(view, explained):
        found = toy_server.said(view, explained)
        return dataclasses.replace(found, answer=found.answer | {'top': [(hostile, 1.0)]})

    served = dataclasses.replace(toy_server.SERVED, labels=[hostile], said=said)
    with toy_server.running(served=served) as server:
        page = browser.new_page()
        page.goto(f'http://{server.host}/')
        choose(page, 'a.jpg', RED)
        assert_answered(page, hostile)
        assert hostile in page.inner_text('#labels') and hostile in page.inner_text('#about')
        assert not page.locator('#evidence').is_visible() and 'picture' in page.title()


def test_with_the_keyboard_alone_a_picture_is_chosen_and_looked_into(page):
    page.on('filechooser', lambda asked: asked.set_files({'name': 'a.jpg', 'mimeType': 'image/jpeg', 'buffer': RED}))
    page.keyboard.press('Tab')
    expect(page.locator('#choose')).to_be_focused()
    page.keyboard.press('Enter')
    assert_answered(page, 'red')
    page.wait_for_selector('#explanation')
    for _ in range(4):
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.id') == 'second':
            break
    assert page.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'  # It is seen.
    page.keyboard.press('Space')
    expect(page.locator('#explained')).to_contain_text('for red and not for')


@pytest.mark.parametrize('width, colours', [(1200, 'light'), (1200, 'dark'), (390, 'light'), (390, 'dark'),
                                            (320, 'light')])
def test_it_fits_is_open_to_everyone_and_asks_nobody_else(server, browser, grave_faults_of, width, colours):
    page = browser.new_page(viewport={'width': width, 'height': 800}, color_scheme=colours)
    asked, said = set(), []
    page.on('request', lambda request: asked.add(request.url.partition(':')[0] + ' ' + urlsplit(request.url).netloc))
    page.on('console', lambda message: said.append(message.text))
    page.goto(f'http://{server.host}/')
    assert fits(page) and not grave_faults_of(page)
    for name, data, shown in (('a.jpg', RED, '#explanation'), ('a.tif', GREY, '#not-shown')):
        choose(page, name, data)
        page.wait_for_selector(shown)
        assert fits(page) and not grave_faults_of(page)
    assert said == []
    choose(page, 'b.jpg', b'hello')
    page.wait_for_selector('#trouble')
    assert fits(page) and not grave_faults_of(page)
    assert asked <= {f'http {server.host}', f'blob {server.host}', 'blob ', 'data '}


def test_the_token_is_asked_for_or_taken_from_the_address_and_then_out_of_sight(browser):
    with toy_server.running(token=toy_server.TOKEN) as server:
        page = browser.new_page()
        page.goto(f'http://{server.host}/')
        for typed in ('wrong', toy_server.TOKEN):
            page.fill('#token', typed)
            page.keyboard.press('Enter')
            page.wait_for_selector('#trouble' if typed == 'wrong' else '#choose')
        choose(page, 'a.jpg', RED)
        assert_answered(page, 'red')
        other = browser.new_page()
        other.goto(f'http://{server.host}/#token={toy_server.TOKEN}')
        choose(other, 'a.jpg', RED)
        assert_answered(other, 'red')
        assert toy_server.TOKEN not in other.url
