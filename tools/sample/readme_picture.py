"""Puts what `eval` and `predict` show of the demo's run onto one picture, for the README; after `make demo`.

    python -m tools.sample.readme_picture --output=docs/eval.jpg
"""

import argparse
import subprocess
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

EVAL = 'finetune eval --checkpoint_dir=checkpoints/sample --data_dir=data/sample --run_once'
PREDICT = 'finetune predict --checkpoint_dir=checkpoints/sample --top_k=1'
PICTURES = 'data/sample_pictures/validation/*/*-0002.jpg'
RESULTS = Path('checkpoints/sample/eval/validation')
ROW_OF_MISTAKES = 280  # Pixels from the top of mistakes.png to the end of its first row.
LINE, CHARACTERS, GAP = 16, 86, 16  # Pixels, but for the width of the screen.
PAPER, SCREEN, LETTERS = (255, 255, 255), (33, 37, 41), (233, 236, 239)


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m tools.sample.readme_picture', description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, required=True, help='picture to write')
    output = parser.parse_args().output
    figures, _, _ = printed(EVAL).partition('\n\nConfusion')  # The matrix stands beside it, as it is drawn.
    answers = printed(PREDICT, *sorted(map(str, Path().glob(PICTURES))))
    text = f'$ {EVAL}\n{figures}\n\n$ {PREDICT} \\\n      {PICTURES}\n{answers}'
    compose(text).save(output, quality=72, subsampling=0)


def printed(command: str, *pictures: str) -> str:
    run = subprocess.run(
        [sys.executable, '-m', *command.split(), *pictures], stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        sys.exit('The picture shows the run that `make demo` makes: run that first.')
    return run.stdout


def compose(text: str) -> Image.Image:
    """The text and the confusion matrix side by side, the surest mistakes below."""
    mistakes, confusion = (Image.open(RESULTS / name).convert('RGB') for name in ('mistakes.png', 'confusion.png'))
    mistakes = mistakes.crop((0, 0, mistakes.width, ROW_OF_MISTAKES))
    screen = terminal(text)
    width = mistakes.width - screen.width - 2 * GAP
    confusion = confusion.resize((width, round(confusion.height * width / confusion.width)), Image.Resampling.LANCZOS)
    height = max(screen.height, confusion.height) + 2 * GAP
    whole = Image.new('RGB', (mistakes.width, height + mistakes.height), PAPER)
    whole.paste(screen, (GAP, GAP))
    whole.paste(confusion, (screen.width + 2 * GAP, GAP))
    whole.paste(mistakes, (0, height))
    return whole


def terminal(text: str) -> Image.Image:
    font = ImageFont.truetype('DejaVuSansMono.ttf', 12)
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, CHARACTERS) or ['']]
    screen = Image.new('RGB', (round(CHARACTERS * font.getlength('0')) + 2 * GAP, LINE * len(lines) + 2 * GAP), SCREEN)
    for number, line in enumerate(lines):
        ImageDraw.Draw(screen).text((GAP, GAP + LINE * number), line, LETTERS, font)
    return screen


if __name__ == '__main__':
    main()
