import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.sample import make as making
from tools.sample.drawing import flowers, patterns

ROOT = Path(__file__).parents[2]


def make(output, *options):
    command = [sys.executable, '-m', 'tools.sample.make', f'--output={output}', '--train=2', '--validation=1']
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (('first', 1), ('again', 1), ('other', 2)):
        make(tmp_path / name, f'--seed={seed}')
    first, again, other = (contents(tmp_path / name) for name in ('first', 'again', 'other'))
    assert len(first) == 3 * len(flowers.CLASSES) + 1
    assert first == again
    assert all(first[path] != other[path] for path in first)


def test_one_picture_drawn_alone_is_the_one_of_the_set(tmp_path):
    make(tmp_path, '--seed=7')
    making.write_picture(tmp_path / 'alone.jpg', 'flowers', 7, 'train', 'rose', 1)
    assert (tmp_path / 'alone.jpg').read_bytes() == (tmp_path / 'train/rose/rose-0001.jpg').read_bytes()


def test_the_end_names_the_counts_and_the_next_command(tmp_path):
    done = make(tmp_path)
    assert done.returncode == 0
    assert '6 classes x (2 train + 1 validation)' in done.stdout
    assert f'--train_directory={tmp_path}/train' in done.stdout


def test_a_folder_with_other_files_is_refused_in_one_sentence_and_left_as_it_was(tmp_path):
    (tmp_path / 'holiday.jpg').write_bytes(b'mine')
    refused = make(tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.count('\n') == 1 and str(tmp_path) in refused.stderr
    assert contents(tmp_path) == {Path('holiday.jpg'): b'mine'}


def test_a_place_that_cannot_be_written_is_told_without_a_traceback(tmp_path):
    (tmp_path / 'file').touch()
    for output in (tmp_path / 'file', tmp_path / 'file/below'):
        failed = make(output)
        assert failed.returncode == 1
        assert failed.stderr.count('\n') == 1 and str(output) in failed.stderr


def test_a_sample_drawn_with_other_settings_is_not_mixed_with_this_one(tmp_path):
    make(tmp_path, '--seed=1')
    assert make(tmp_path, '--seed=1').returncode == 0
    assert make(tmp_path, '--seed=2').returncode == 1


def test_the_set_holds_both_formats_and_many_sizes():
    jobs = list(making.jobs(Path('set'), 'flowers', seed=1, train=10, validation=0))
    assert {path.suffix for path, *_ in jobs} == {'.jpg', '.png'}
    assert len({making.draw_picture(*which).size for _, *which in jobs[:10]}) > 5


@pytest.mark.parametrize('kind', making.KINDS)
def test_every_class_can_be_drawn(kind):
    for name in list(making.KINDS[kind].CLASSES)[::3]:
        picture = making.draw_picture(kind, 1, 'train', name, 0)
        assert picture.mode == 'RGB' and min(picture.size) >= 100


@pytest.mark.slow
def test_colour_alone_does_not_give_a_flower_away():
    def mean_colours(split, count):
        return np.array([[np.asarray(making.draw_picture('flowers', 1, split, name, index)).mean((0, 1))
                          for index in range(count)] for name in flowers.CLASSES])  # [classes, count, 3]
    of_class = mean_colours('train', 20).mean(axis=1)
    distances = np.linalg.norm(mean_colours('validation', 10)[:, :, None] - of_class, axis=-1)
    precision = np.mean(distances.argmin(axis=-1) == np.arange(len(flowers.CLASSES))[:, None])
    assert precision < 0.5


def test_no_flower_of_the_demo_is_among_the_patterns():
    assert len(patterns.CLASSES) >= 100
    assert not any(flower in name for name in patterns.CLASSES for flower in flowers.CLASSES)
