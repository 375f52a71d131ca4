import numpy as np
import pytest

from finetune.evaluation import calibration, metrics


def honest(records: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(labels, logits) where every probability is met: the labels were drawn with them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (records, classes)).astype(np.float32)
    likely = metrics.probabilities(logits)
    labels = (likely.cumsum(axis=1) < random.random((records, 1))).sum(axis=1)
    return np.minimum(labels, classes - 1), logits


def test_the_temperature_finds_out_by_how_much_logits_were_blown_up():
    labels, logits = honest(20_000)
    for factor in (0.5, 1.0, 3.0):
        assert calibration.temperature(labels, factor * logits) == pytest.approx(factor, rel=0.05)


def test_a_network_that_is_too_sure_costs_less_after_its_temperature():
    labels, logits = honest(2000)
    sure = 3 * logits
    before = calibration.measure(labels, sure)
    after = calibration.measure(labels, sure / calibration.temperature(labels, sure))
    assert after.nll < 0.8 * before.nll and after.brier < before.brier
    assert after.ece < 0.3 * before.ece and after.ece - after.ece_if_perfect < 0.01


def test_the_error_of_honest_confidences_is_that_of_chance_alone():
    for records in (100, 500, 5000):
        found = [calibration.measure(*honest(records, seed=seed)) for seed in range(5)]
        assert np.mean([one.ece for one in found]) == pytest.approx(
            np.mean([one.ece_if_perfect for one in found]), rel=0.3)


def test_three_sure_and_right_answers_make_nobody_infinitely_sure():
    labels, logits = np.array([0, 1, 2]), 5 * np.eye(3, dtype=np.float32)
    sharpened = logits / calibration.temperature(labels, logits)
    assert metrics.probabilities(sharpened).max() < 0.95


def test_an_output_that_is_switched_off_has_no_say_in_the_temperature():
    labels, logits = honest(2000)
    with_background = np.concatenate([np.full((2000, 1), -100, np.float32), logits], axis=1)
    assert calibration.temperature(labels + 1, with_background) == pytest.approx(
        calibration.temperature(labels, logits), rel=1e-4)


def test_halves_in_turn_do_not_flatter_a_temperature_with_the_pictures_it_was_fitted_to():
    labels, logits = honest(40)
    itself = calibration.measure(labels, logits / calibration.temperature(labels, logits)).nll
    assert calibration.measure(labels, logits, calibration.halves_in_turn(labels, logits)).nll > itself


def test_figures_are_those_of_the_textbook():
    """Two pictures, each 0.8 sure; one is right."""
    logits = np.log([[0.8, 0.2], [0.8, 0.2]]).astype(np.float32)
    found = calibration.measure(np.array([0, 1]), logits)
    assert found.nll == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2, rel=1e-5)
    assert found.brier == pytest.approx((2 * 0.2**2 + 2 * 0.8**2) / 2, rel=1e-5)
    assert found.ece == pytest.approx(abs(0.8 - 0.5), rel=1e-5)


def test_one_picture_is_enough_to_be_measured():
    found = calibration.measure(np.array([1]), np.array([[0.0, 1.0]], np.float32))
    assert np.isfinite([found.nll, found.brier, found.ece, found.ece_if_perfect]).all()
    assert np.isfinite(calibration.halves_in_turn(np.array([1]), np.array([[0.0, 1.0]]))).all()


def test_reliability_counts_every_answer_once_by_how_sure_it_is():
    logits = np.log(np.array([[0.95, 0.05], [0.92, 0.08], [0.45, 0.55], [0.0001, 0.9999]]))
    bins = calibration.reliability(np.array([0, 1, 1, 1]), logits)
    assert [(each.pictures, each.right) for each in bins] == [(1, 1), (3, 2)]
    assert bins[0].confidence == pytest.approx(0.55)


def test_the_surest_answers_come_first_and_equally_sure_ones_together():
    logits = np.log(np.array([[0.6, 0.4], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]))
    answered, right, confidence = calibration.answered_first(np.array([0, 0, 1, 1]), logits)
    assert answered.tolist() == [1, 2, 4] and right.tolist() == [1, 2, 3]
    np.testing.assert_allclose(confidence, [0.9, 0.7, 0.6])
