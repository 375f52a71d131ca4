import numpy as np
import pytest
from PIL import Image, ImageFilter

from finetune.checking import album, neighbours, odd
from tests.checking import albums
from tests.checking.albums import photo, saved

USUAL = [photo(seed) for seed in range(30)]


def kinds_of(image: Image.Image, **options) -> set[str]:
    """What is said of one picture among thirty usual ones; of those, nothing may be said."""
    seen = albums.of([*map(saved, USUAL), saved(image, **options)])
    found = list(odd.at_a_glance(seen, image_size=224))
    assert {finding.places for finding in found} <= {(len(USUAL),)}
    assert all(0.5 <= finding.score <= 1 for finding in found)
    return {finding.kind for finding in found}


@pytest.mark.parametrize(('image', 'kind'), [
    (photo(99).filter(ImageFilter.GaussianBlur(12)), 'blurred'),
    (photo(99).point(lambda value: value // 10), 'dark'),
    (photo(99).point(lambda value: 230 + value // 11), 'bright'),
    (Image.new('RGB', (160, 120), (90, 120, 30)), 'uniform'),
    (photo(99, (24, 18)), 'tiny'),
    (photo(99, (600, 100)), 'shape'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_an_odd_picture_is_named_for_what_is_odd(image, kind):
    assert kinds_of(image) == {kind}


def test_a_usual_picture_is_not_odd():
    assert kinds_of(photo(99)) == set()


def test_a_wall_of_two_colours_equally_light_is_not_called_empty():
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:, :80], pixels[:, 80:] = (200, 0, 0), (0, 102, 0)
    assert 'uniform' not in kinds_of(Image.fromarray(pixels))


def test_where_all_are_small_none_is_called_tiny():
    seen = albums.of([saved(photo(seed, (32, 32))) for seed in range(12)])
    assert not [finding for finding in odd.at_a_glance(seen, image_size=224) if finding.kind == 'tiny']


def test_a_picture_like_no_class_is_an_outlier_and_one_of_another_class_is_not():
    random = np.random.default_rng(0)
    labels = np.repeat([1, 2], 40)
    rows = np.zeros((80, 20))
    rows[:40, 0], rows[40:, 1] = 1, 1
    rows += 0.05 * random.normal(size=rows.shape)
    rows[3], rows[5] = np.eye(20)[7], rows[60]  # Like nothing; like the other class: a label error.
    found = list(odd.outliers(neighbours.unit_rows(rows), labels, np.arange(80), np.ones(80, bool)))
    assert [finding.places for finding in found] == [(3,)]


def test_the_quality_that_a_jpeg_was_saved_with_is_read_from_it():
    def read(quality: int) -> float:
        return float(album.look(saved(photo(0), quality))['jpeg_quality'])

    assert read(90) == pytest.approx(90, abs=2) and read(50) == pytest.approx(50, abs=2)
    assert album.look(saved(photo(0), 30))['jpeg_quality'] == pytest.approx(30, abs=2)


@pytest.mark.parametrize('size', [(1, 1), (2, 5), (3000, 2), (1, 400)])
def test_a_picture_of_any_size_can_be_looked_at(size):
    seen = album.look(saved(Image.new('RGB', size, 'red')))
    assert (seen['width'], seen['height']) == size
    assert all(np.isfinite(seen[name]).all() for name in ('sharpness', 'contrast', 'dark_end', 'borders'))
