"""Photographs parts of a report for the README, in Chromium: of the demo's pictures, and the small network that ships.

    finetune data/sample_pictures --output=checkpoints/shipped --pretrained=sample
    python -m tools.sample.readme_picture --output=docs/report.jpg
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image

REPORT = Path('checkpoints/shipped/report.html')
WIDTH, SECTIONS = 1100, {'summary': 590, 'mistakes': 462}  # By its anchor, how many rows of a section are shown.
GAP, PAPER = 24, (255, 255, 255)


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m tools.sample.readme_picture', description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, required=True, help='picture to write')
    output = parser.parse_args().output
    if not REPORT.exists():
        sys.exit(f'{REPORT} is not there: run the first command above.')
    below_one_another(photographed()).save(output, quality=66)


def photographed() -> list[Image.Image]:
    from playwright.sync_api import sync_playwright  # Of the extra `dev`.

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': WIDTH, 'height': 900})
        page.goto(REPORT.resolve().as_uri())
        shots = [page.locator(f'section[aria-labelledby={section}]').screenshot() for section in SECTIONS]
        browser.close()
    return [Image.open(io.BytesIO(shot), formats=['PNG']).convert('RGB') for shot in shots]


def below_one_another(parts: list[Image.Image]) -> Image.Image:
    parts = [part.crop((0, 0, part.width, min(part.height, rows)))
             for part, rows in zip(parts, SECTIONS.values(), strict=True)]
    height = sum(part.height for part in parts) + GAP * (len(parts) - 1)
    page, top = Image.new('RGB', (max(part.width for part in parts), height), PAPER), 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height + GAP
    return page


if __name__ == '__main__':
    main()
