import numpy as np

from finetune.models import classifier
from finetune.reporting import evidence
from tests import toy


def look(spoke, light: float = 0.5) -> evidence.Look:
    return evidence.look(np.full((16, 16, 3), [light, 0.2, 0.1], np.float32), np.array(spoke, np.float32))


def test_what_spoke_for_the_answer_is_bright_and_the_rest_is_dim_and_grey():
    found = look([[9, 0, 0], [0, 0, 0], [0, 0, -9]])
    before, shown = (np.asarray(image, int) for image in (found.view, found.where))
    assert found.words == 'upper left'
    np.testing.assert_allclose(shown[5, 5], before[5, 5], atol=3)
    assert np.ptp(shown[-5, -5]) <= 1 and shown[-5, -5].sum() < before[-5, -5].sum() / 2


def test_the_strongest_place_has_a_line_around_it_that_is_seen_on_any_ground():
    shown = np.asarray(look([[9, 0, 0], [0, 0, 0], [0, 0, 0]]).where)
    assert (shown == 255).all(axis=-1).sum() > 20 and (shown == 0).all(axis=-1).sum() > 20


def test_where_nothing_spoke_for_the_answer_all_is_dim():
    shown = np.asarray(look([[-1, -2], [-3, -4]]).where)
    assert np.ptp(shown, axis=-1).max() <= 1


def test_each_picture_gets_a_look():
    model = classifier.build('toy', 3, image_size=16)
    encoded = [toy.encoded(toy.picture(number)) for number in range(3)]
    assert len(evidence.looks(model, 16, 0.875, encoded, [1, 2, 0], range(3))) == 3
    assert evidence.looks(model, 16, 0.875, [], [], range(3)) == []
