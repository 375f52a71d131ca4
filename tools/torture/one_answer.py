"""One picture, one answer: what training sees at evaluation settings, eval and predict: R18."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finetune import build
from finetune.console.errors import Reject
from finetune.console.lazy import tf
from finetune.evaluation import inference
from finetune.models import engines
from finetune.pictures import disk, gate
from finetune.pictures.views import DISTORTIONS, viewer
from finetune.predicting import asked, pipeline
from finetune.records import batches, dataset
from tests import corpus, toy, toy_run
from tools.torture import unless, warm

SIZE, CROP = 32, 0.875
SAME = 1e-5


def everywhere(place: Path, seed: int, count: int) -> Iterator[str]:
    """Every picture of the corpus that is let in, and one of each kind that is drawn here."""
    folder = place / 'pictures' / 'blue'
    _draw_all_kinds(folder)
    for entry in corpus.manifest()['files'] if corpus.MAKER.exists() else ():
        with contextlib.suppress(Reject):
            data = disk.read(corpus.path(entry))
            if gate.admit(data).width < 2000:
                (folder / f'{len(list(folder.iterdir()))}.jpg').write_bytes(data)
    yield from _treated_in_two_ways(place, folder.parent)


def of_all_kinds(place: Path) -> Iterator[str]:
    """One picture of each kind that is drawn here."""
    _draw_all_kinds(place / 'pictures' / 'blue')
    yield from _treated_in_two_ways(place, place / 'pictures')


def _treated_in_two_ways(place: Path, pictures: Path) -> Iterator[str]:
    yield from compared(place / 'whole', pictures)
    yield from compared(place / 'shrunk', pictures, '--short_side=24')


def _draw_all_kinds(folder: Path) -> None:
    folder.mkdir(parents=True)
    turned = toy.picture(9, (70, 45)).getexif()
    turned[0x0112] = 6
    clear = toy.picture(10, (51, 50)).convert('RGBA')
    clear.putalpha(90)
    kinds = {
        'plain.jpg': toy.encoded(toy.picture(1, (45, 31))), 'large.jpg': toy.encoded(toy.picture(2, (300, 200))),
        'turned.jpg': toy.encoded(toy.picture(3, (70, 45)), exif=turned.tobytes()),
        'progressive.jpg': toy.encoded(toy.picture(4, (45, 31)), progressive=True),
        'grey.jpg': toy.encoded(toy.picture(5, (45, 31)).convert('L')),
        'cmyk.jpg': toy.encoded(toy.picture(6, (45, 31)).convert('CMYK')),
        'plain.png': toy.encoded(toy.picture(7, (45, 31)), 'PNG'), 'clear.png': toy.encoded(clear, 'PNG'),
        'one.gif': toy.encoded(toy.picture(8, (45, 31)), 'GIF'),
        'one.bmp': toy.encoded(toy.picture(9, (45, 31)), 'BMP'),
        'one.webp': toy.encoded(toy.picture(11, (45, 31)), 'WEBP'),
        'tiny.png': toy.encoded(toy.picture(12, (9, 9)), 'PNG'),
    }
    for name, data in kinds.items():
        (folder / name).write_bytes(data)


def compared(place: Path, pictures: Path, *flags: str) -> Iterator[str]:
    """A line a picture, of records built with these flags. Every call has a place of its own."""
    assert warm, 'it adds the toy network'
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert build.main([f'--train_directory={pictures}', f'--output_directory={place}/data', '--num_threads=1',
                           '--validation_percent=0', *flags]) == 0
    data = dataset.open_records(place / 'data')
    run = toy_run.start_run(place / 'run', ('background', 'blue', 'green'), (0, 9, 9), data.treatment)
    toy_run.save_checkpoint(run, step=1)
    logits_of = engines.function(run.load().model)
    in_eval = _by_name(inference.outputs(
        logits_of, batches.for_evaluation(data, 'train', SIZE, CROP, batch_size=7)))
    in_training = _by_name(inference.outputs(logits_of, batches.of_all_views(
        data, 'train', SIZE, CROP, 1, DISTORTIONS['inception'], seed=3, batch_size=5,
        asked=np.ones(data.split('train').records, bool)).map(_only_view)))
    in_predict = _predicted(run, pictures, logits_of)
    spread = np.ptp(list(in_eval.values()), axis=0).max()
    assert spread > 100 * SAME, 'the network says the same of every picture, so that nothing is tested'
    for name, logits in in_eval.items():
        apart = max(np.abs(logits - other[name]).max() for other in (in_training, in_predict))
        yield unless(apart < SAME, f'{" ".join([os.fsdecode(name), *flags])}: logits {apart:.2g} apart')


def _only_view(batch: dict) -> dict:
    return batch | {'image': batch['image'][:, 0]}


def _by_name(outputs: inference.Outputs) -> dict[bytes, np.ndarray]:
    return dict(zip(outputs.filenames, outputs.logits, strict=True))


def _predicted(run, pictures: Path, logits_of) -> dict[bytes, np.ndarray]:
    """As `finetune predict` comes to its logits, picture by picture."""
    views_of, answers = viewer(run.recipe.image_size, run.recipe.crop_fraction), {}
    for path, rejected in asked.find_pictures([str(pictures)]):
        encoded = rejected or pipeline.admit(path, run.records['treatment'])
        assert not isinstance(encoded, Reject), path
        answers[os.fsencode(os.path.relpath(path, pictures))] = logits_of(views_of(tf.constant([encoded]))).numpy()[0]
    return answers
