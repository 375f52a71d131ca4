import colorsys
import dataclasses

import numpy as np
import pytest

from finetune.console.lazy import tf
from finetune.pictures.views import DISTORTIONS, Distortion, decode, distort, view

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
SQUARE = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
STILL = Distortion(min_crop_area=1.0, max_aspect=1.0, flip=False, color=0.0)


def distorted(seed=(1, 2), image=SQUARE, size=2, **changes):
    distortion = Distortion(**{**STILL.__dict__, **changes})
    return distort(tf.constant(image), size, distortion, tf.constant(seed, tf.int64)).numpy()


def test_the_view_of_a_square_of_its_own_size_is_the_square():
    np.testing.assert_allclose(view(tf.constant(SQUARE), 2, 1.0), SQUARE / 255.0)


def test_the_view_keeps_the_centre_and_drops_the_border():
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:6, 2:6] = 255
    np.testing.assert_allclose(view(tf.constant(image), 4, 0.5), np.ones((4, 4, 3)))


def test_a_large_picture_shrinks_to_the_mean_of_what_it_covers():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    np.testing.assert_allclose(view(tf.constant(stripes), 4, 1.0), np.full((4, 4, 3), 0.5), atol=0.02)


def test_without_distortion_a_training_picture_is_the_whole_picture():
    np.testing.assert_allclose(distorted(), SQUARE / 255.0)


def test_a_flip_is_left_to_right_and_happens_to_half_of_the_pictures():
    mirrored = [np.allclose(distorted((seed, 0), flip=True), SQUARE[:, ::-1] / 255.0) for seed in range(60)]
    straight = [np.allclose(distorted((seed, 0), flip=True), SQUARE / 255.0) for seed in range(60)]
    assert sum(mirrored) + sum(straight) == 60
    assert 15 < sum(mirrored) < 45


def test_crops_differ_and_keep_the_smallest_area_they_may():
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0] = np.arange(100)[:, None]
    ramp[..., 1] = np.arange(100)[None, :]
    shares = []
    for seed in range(30):
        view = distorted((seed, 5), ramp, 50, min_crop_area=0.3, max_aspect=4 / 3) * 255
        height, width = view[-1, 0, 0] - view[0, 0, 0], view[0, -1, 1] - view[0, 0, 1]
        shares.append(height * width / 100**2)
    assert min(shares) > 0.25
    assert max(shares) - min(shares) > 0.3


@pytest.mark.parametrize('strength', [0.3, 1.0])
def test_colours_change_by_no_more_than_their_strength_allows(strength):
    grey = np.full((2, 2, 3), 128, np.uint8)  # Hue, saturation and contrast leave an even grey as it is.
    for seed in range(20):
        assert abs(distorted((seed, 1), grey, color=strength) - 128 / 255).max() <= strength * 32 / 255 + 1e-5


GRAYS = np.linspace(60, 180, 64).reshape(8, 8, 1).repeat(3, axis=2).astype(np.uint8)


def test_gray_stays_gray_whatever_happens_to_colours():
    for seed in range(20):
        view = distorted((seed, 1), GRAYS, 8, color=1.0)
        np.testing.assert_allclose(view, view[..., :1].repeat(3, axis=2), atol=1e-6)


def test_contrast_goes_from_half_to_one_and_a_half():
    gains = [np.ptp(distorted((seed, 2), GRAYS, 8, color=1.0)) / np.ptp(GRAYS / 255.0) for seed in range(60)]
    assert 0.5 <= min(gains) < 0.6 and 1.4 < max(gains) <= 1.5 + 1e-5


def test_hue_turns_both_ways_and_saturation_makes_colours_paler_and_stronger():
    brown = np.full((8, 8, 3), (130, 110, 90), np.uint8)
    views = [colorsys.rgb_to_hsv(*distorted((seed, 3), brown, 8, color=1.0)[0, 0]) for seed in range(80)]
    hue, saturation, _ = colorsys.rgb_to_hsv(*(brown[0, 0] / 255))
    turns = [(view[0] - hue + 0.5) % 1 - 0.5 for view in views]
    assert -0.3 < min(turns) < -0.1 and 0.1 < max(turns) < 0.3
    assert min(view[1] for view in views) < 0.6 * saturation and max(view[1] for view in views) > 1.4 * saturation


@pytest.mark.parametrize('size', [7, 16, 299])
def test_every_pixel_is_recoloured_alike_whatever_the_size(size):
    even = np.full((size, size, 3), (200, 100, 50), np.uint8)
    view = distorted((1, 1), even, size, color=0.5)
    np.testing.assert_allclose(view, np.broadcast_to(view[0, 0], view.shape), atol=1e-6)
    assert np.abs(view[0, 0] - even[0, 0] / 255).max() > 0.01


def test_a_crop_from_a_padded_picture_is_the_picture_moved_by_whole_pixels():
    image = np.random.default_rng(0).integers(1, 256, (16, 16, 3)).astype(np.uint8)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)]) / 255.0
    crops = {(y, x): padded[y:y + 16, x:x + 16] for y in range(5) for x in range(5)}
    found = set()
    for seed in range(150):
        view = distorted((seed, 3), image, 16, shift=0.125, whole_pixels=True)
        place, = [place for place, crop in crops.items() if np.allclose(view, crop, atol=1e-6)]
        found.add(place)
    assert len(found) == 25  # All of them occur.


def test_a_shift_moves_by_any_fraction_of_a_pixel_up_to_its_share_of_the_side():
    bar = np.zeros((20, 20, 3), np.uint8)
    bar[:, 10] = 255
    columns = np.arange(20)
    centres = []
    for seed in range(60):
        row = distorted((seed, 4), bar, 20, shift=0.2)[10, :, 0]
        centres.append((row * columns).sum() / row.sum())
    assert 6 <= min(centres) < 7.5 and 12.5 < max(centres) <= 14
    assert np.abs(np.array(centres) - np.round(centres)).max() > 0.2


def test_what_a_shift_leaves_empty_is_black():
    white = np.full((8, 8, 3), 255, np.uint8)
    views = [distorted((seed, 5), white, 8, shift=0.25, whole_pixels=True) for seed in range(20)]
    assert all(set(np.unique(view)) <= {0.0, 1.0} for view in views) and min(view.mean() for view in views) < 0.9


def test_colours_stay_between_black_and_white():
    for seed in range(20):
        view = distorted((seed, 1), color=1.0)
        assert view.min() >= 0 and view.max() <= 1


def test_the_same_seed_gives_the_same_view_inside_tf_data_as_eagerly():
    distortion = dataclasses.replace(DISTORTIONS['inception'], shift=0.1)
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    seeds = [(7, index) for index in range(4)]
    eager = [distort(tf.constant(image), 16, distortion, tf.constant(seed, tf.int64)) for seed in seeds]
    dataset = tf.data.Dataset.from_tensor_slices(np.array(seeds)).map(
        lambda seed: distort(tf.constant(image), 16, distortion, seed), num_parallel_calls=4)
    np.testing.assert_allclose(list(dataset), eager, atol=2e-6)
    assert np.abs(eager[0] - eager[1]).max() > 0.05


def test_pixels_are_decoded_as_pillow_decodes_them():
    import io

    from PIL import Image
    noise = np.random.default_rng(2).integers(0, 255, (30, 50, 3), np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(noise).save(jpeg, 'JPEG', quality=80)
    np.testing.assert_array_equal(decode(jpeg.getvalue()), np.asarray(Image.open(jpeg)))
