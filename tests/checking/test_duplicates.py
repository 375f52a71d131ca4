import numpy as np
import pytest
from PIL import Image, ImageOps

from finetune.checking import duplicates, findings, judgement, neighbours, pdq
from finetune.features.store import Pooled
from tests.checking import albums
from tests.checking.albums import photo, saved

UNKNOWN = np.full((0, 1), -1)  # No features were computed: hashes alone decide.
FOUR = [photo(seed) for seed in range(4)]


def pairs_of(pictures, rows=None):
    album = albums.of(pictures)
    near = neighbours.by_cosine(rows, 3) if rows is not None else (UNKNOWN, UNKNOWN.astype(np.float32))
    return duplicates.pairs(album.glimpses, *near)


@pytest.mark.parametrize('copy', [
    lambda image: saved(image, 50),
    lambda image: saved(image.resize((80, 60))),
    lambda image: saved(ImageOps.mirror(image)),
    lambda image: saved(image.convert('L').convert('RGB')),
    lambda image: saved(image.point(lambda value: min(255, round(1.2 * value)))),
    lambda image: saved(image, progressive=True),
], ids=['quality 50', 'half size', 'mirrored', 'gray', 'brighter', 'progressive'])
def test_a_copy_is_found_however_it_was_saved(copy):
    found = pairs_of([saved(image) for image in FOUR] + [copy(FOUR[2])])
    assert [(pair.one, pair.other) for pair in found] == [(2, 4)] and found[0].likeness > 0.8


def test_different_pictures_are_no_pair():
    assert pairs_of([saved(image) for image in FOUR]) == []


def test_the_same_pixels_are_the_same_picture_whatever_the_bytes():
    found = pairs_of([saved(FOUR[0]), saved(FOUR[0], optimize=True), saved(FOUR[1])])
    assert [(pair.one, pair.other, pair.same) for pair in found] == [(0, 1, True)]


def test_pictures_that_show_nothing_are_not_called_alike():
    """The bits of a gray wall are noise, and near those of any other wall."""
    walls = [Image.new('RGB', (160, 120), (shade, shade, shade)) for shade in (100, 101, 120)]
    assert pairs_of([saved(wall) for wall in walls]) == []


def test_a_picture_that_stands_there_a_hundred_times_is_not_five_thousand_pairs():
    assert len(pairs_of([saved(FOUR[0])] * 100 + [saved(FOUR[1])])) == 99


def test_features_find_the_crop_that_hashes_do_not():
    crop = saved(FOUR[0].crop((16, 12, 160, 120)))
    rows = np.eye(5, 8, dtype=np.float32)
    rows[4] = neighbours.unit_rows(np.array([[1, 0, 0, 0, 0.2, 0, 0, 0]]))[0]
    assert pairs_of([*map(saved, FOUR), crop]) == []
    assert [(pair.one, pair.other) for pair in pairs_of([*map(saved, FOUR), crop], rows)] == [(0, 4)]


def test_a_network_that_finds_everything_alike_does_not_make_everything_a_copy():
    """Those of drawn pictures lie within a cosine of 0.95 of their nearest, and none is a copy of another."""
    random = np.random.default_rng(0)
    rows = neighbours.unit_rows(1 + 0.2 * random.normal(size=(300, 64)))
    _, cosines = neighbours.by_cosine(rows, 3)
    assert np.median(cosines[:, 0]) > duplicates.NEAR_COSINE
    assert np.mean(cosines[:, 0] >= duplicates.near_bound(cosines)) == 0


def test_a_pair_says_what_it_harms():
    pictures = [saved(FOUR[0])] * 2 + [saved(FOUR[1])] * 2 + [saved(FOUR[2])] * 2
    album = albums.of(pictures, labels=[1, 1, 1, 2, 1, 1], splits=['train'] * 5 + ['validation'])
    found = list(duplicates.findings(album, duplicates.pairs(album.glimpses, UNKNOWN, UNKNOWN.astype(np.float32))))
    assert [(finding.kind, finding.places) for finding in found] == [
        ('duplicate', (0, 1)), ('contradiction', (2, 3)), ('leak', (4, 5))]
    assert findings.figures(found)['duplicates'] == 3 and findings.figures(found)['leaks'] == 1


def test_a_mirror_is_known_without_a_second_look():
    gray = FOUR[0].convert('L')
    own, mirrored = pdq.hashed(gray)[0], pdq.hashed(ImageOps.mirror(gray))[0]
    own[-pdq.TURNED:] ^= True
    assert np.sum(own != mirrored) <= 12


def test_the_nearest_of_many_blocks_are_the_nearest(monkeypatch):
    monkeypatch.setattr(neighbours, 'BLOCK', 16)
    rows = neighbours.unit_rows(np.random.default_rng(0).normal(size=(103, 8)))
    places, cosines = neighbours.by_cosine(rows, 5)
    every = rows @ rows.T
    np.fill_diagonal(every, -np.inf)
    assert (places == np.argsort(-every, axis=1)[:, :5]).all()
    np.testing.assert_allclose(cosines, -np.sort(-every, axis=1)[:, :5], atol=1e-6)


def test_of_very_many_the_nearest_are_found_too(monkeypatch):
    monkeypatch.setattr(neighbours, 'MANY', 100)
    monkeypatch.setattr(neighbours, 'SKETCH', 16)
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 40)).astype(np.float32)
    rows[100:] = rows[:100] + 0.1 * random.normal(size=(100, 40))
    places, _ = neighbours.by_cosine(neighbours.unit_rows(rows), 3)
    assert (places[:, 0] == (np.arange(200) + 100) % 200).all()


def test_fewer_others_than_asked_for_are_no_error():
    places, cosines = neighbours.by_cosine(neighbours.unit_rows(np.eye(3)), 5)
    assert (places[:, 2:] == -1).all() and np.isneginf(cosines[:, 2:]).all()


def test_of_equally_near_ones_some_are_kept():
    """Copies are equally near; lost, they would be found nowhere."""
    _, cosines = neighbours.by_cosine(neighbours.unit_rows(np.ones((9, 4))), 3)
    np.testing.assert_allclose(cosines, 1, rtol=1e-6)


def test_pictures_are_compared_by_the_last_layer_whatever_else_a_head_reads():
    """Earlier layers see the same textures in a hundred different photos."""
    seen = albums.of([saved(image) for image in FOUR])
    alike, different = np.full((4, 30), 9, np.float16), np.eye(4, 6, dtype=np.float16)
    assert judgement.copies(seen, Pooled(np.hstack([alike, different]), 6)) == []
    assert len(judgement.copies(seen, Pooled(np.hstack([different, alike]), 30))) > 0
