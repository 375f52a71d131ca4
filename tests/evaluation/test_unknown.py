import numpy as np
import pytest

from finetune.evaluation import unknown


def pictures(records: int, seed: int, classes: int = 3, channels: int = 64, spread: float = 1.0):
    """(features [n, c] around the direction of their class, labels [n] from 1 on, logits [n, classes])."""
    random = np.random.default_rng(seed)
    directions = 2 * np.random.default_rng(99).normal(size=(classes, channels))
    labels = 1 + np.arange(records) % classes
    features = directions[labels - 1] + spread * random.normal(size=(records, channels))
    return features.astype(np.float32), labels, (features @ directions.T / channels).astype(np.float32)


def familiarity(fitted, features, logits=None):
    return unknown.familiarity(features, np.zeros((len(features), 3)) if logits is None else logits, *fitted)


@pytest.mark.parametrize('records', [60, 3000])
@pytest.mark.parametrize('with_energy', [False, True])
def test_as_many_real_pictures_are_kept_as_were_asked_for(records, with_energy):
    kept = {0.95: [], 0.8: []}
    for draw in range(10):
        features, labels, logits = pictures(records, seed=draw)
        fitted = unknown.fit(features, labels, logits if with_energy else None)
        unseen, _, unseen_logits = pictures(1000, seed=100 + draw)
        found = familiarity(fitted, unseen, unseen_logits)
        for keep, shares in kept.items():
            shares.append(np.mean(found > 1 - keep))
    for keep, shares in kept.items():
        assert np.mean(shares) == pytest.approx(keep, abs=0.05 if records < 100 else 0.02)


@pytest.mark.parametrize('with_energy', [False, True])
def test_a_picture_of_something_else_is_not_familiar(with_energy):
    features, labels, logits = pictures(300, seed=0)
    fitted = unknown.fit(features, labels, logits if with_energy else None)
    strange = np.random.default_rng(5).normal(size=(200, 64)).astype(np.float32)
    found = familiarity(fitted, strange, np.zeros((200, 3)))
    assert np.mean(found > 0.05) < 0.02
    assert (found > 0).all()  # Nothing is impossible.


def test_a_picture_is_compared_with_a_mean_that_it_is_not_part_of():
    """Of two pictures a class each is half of the mean, and would look familiar whatever it shows."""
    noise = np.random.default_rng(0).normal(size=(6, 1000))
    cosines = unknown._cosines_without_itself(noise, np.array([1, 1, 2, 2, 3, 3]))
    assert np.abs(cosines).max() < 0.2
    alone = unknown._cosines_without_itself(noise, np.arange(6))
    assert np.abs(alone).max() < 0.2


def test_taking_a_picture_out_of_its_mean_is_to_compute_the_mean_without_it():
    features, labels, _ = pictures(12, seed=3)
    found = unknown._cosines_without_itself(features, labels)
    for i in range(12):
        others = np.arange(12) != i
        means = unknown.class_means(features[others], labels[others])
        direction = features[i] / np.linalg.norm(features[i])
        assert found[i] == pytest.approx((means @ direction).max(), abs=1e-5)


def test_what_a_run_stores_does_not_grow_with_its_pictures():
    features, labels, _ = pictures(5000, seed=0)
    means, _, real = unknown.fit(features, labels)
    assert means.shape == (3, 64) and len(real) == 999 and (np.diff(real) >= 0).all()


def test_features_that_are_all_zero_are_answered_too():
    features, labels, _ = pictures(30, seed=0)
    features[0] = 0
    assert np.isfinite(familiarity(unknown.fit(features, labels), np.zeros((1, 64)))).all()
