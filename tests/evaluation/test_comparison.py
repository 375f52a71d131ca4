"""Which of two is better, against published examples, SciPy, and the likelihood itself."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from finetune.evaluation import comparison
from finetune.evaluation.comparison import Pair


@st.composite
def pairs(draw, most=200) -> Pair:
    pictures = draw(st.integers(1, most))
    only_first = draw(st.integers(0, pictures))
    return Pair(only_first, draw(st.integers(0, pictures - only_first)), pictures)


def test_only_the_pictures_that_one_alone_gets_right_are_counted():
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, False, True, False, True])
    assert comparison.pair(first, second) == Pair(only_first=2, only_second=1, pictures=6)


@pytest.mark.parametrize('counts, p', [
    ((12, 2), 0.0129),  # Armitage and Berry (1994): two media for the same sputum.
    ((1, 7), 0.0703),  # Bentur et al. (2009), as in Fagerland, Lydersen and Laake (2014).
    ((0, 0), 1), ((5, 5), 1), ((5, 0), 2 / 2**5), ((0, 6), 2 / 2**6)])
def test_the_exact_test_is_that_of_the_books(counts, p):
    assert comparison.mcnemar(*counts) == pytest.approx(p, abs=5e-5)


def test_the_interval_is_that_of_the_books():
    """Bentur et al. (2009): -0.517 to -0.026, as in Fagerland, Lydersen and Laake (2014)."""
    assert Pair(1, 7, 21).interval == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_two_that_never_differ_are_as_sure_as_a_proportion_without_a_case():
    """Then Tango's interval has a closed form, z² / (n + z²), which is the upper end of Wilson's for 0 of n."""
    z2 = stats.norm.ppf(0.975) ** 2
    assert Pair(0, 0, 100).interval == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))


@settings(max_examples=40, deadline=None)
@given(pairs(60))
@example(Pair(41, 25, 500))
def test_at_its_ends_the_likelihood_is_as_far_off_as_the_interval_says(pair):
    """The share of the second's is found by search, not by the formula."""
    def score(difference):
        def loss(share):
            cells = np.array([share + difference, share, 1 - 2 * share - difference])
            counts = np.array([pair.only_first, pair.only_second, pair.pictures - pair.only_first - pair.only_second])
            return -np.sum(counts * np.log(np.maximum(cells, 1e-300)))

        bounds = max(0, -difference), (1 - difference) / 2
        share = optimize.minimize_scalar(loss, bounds=bounds, method='bounded', options={'xatol': 1e-12}).x
        variance = (2 * share + difference * (1 - difference)) / pair.pictures
        return (pair.difference - difference) / np.sqrt(variance)

    low, high = pair.interval
    assert low == -1 or score(low) == pytest.approx(1.96, abs=5e-3)
    assert high == 1 or score(high) == pytest.approx(-1.96, abs=5e-3)


@settings(max_examples=100, deadline=None)
@given(pairs())
@example(Pair(0, 200, 200))
@example(Pair(1, 0, 1))
def test_what_one_gains_the_other_loses(pair):
    low, high = pair.interval
    assert -1 <= low <= pair.difference <= high <= 1 and low < high  # One picture says very little, never all.
    turned = Pair(pair.only_second, pair.only_first, pair.pictures)
    assert turned.interval == pytest.approx((-high, -low)) and turned.p == pair.p


@settings(max_examples=100, deadline=None)
@given(pairs(5000))
def test_an_interval_never_holds_0_where_the_exact_test_tells_two_apart(pair):
    """A sentence that says 'is better by 3 points (-1 to 7)' would be no help."""
    if pair.p < comparison.SURE:
        low, high = pair.interval
        assert low > 0 or high < 0


@pytest.mark.slow
@pytest.mark.parametrize('only_first, only_second', [(0.02, 0.02), (0.08, 0.04), (0.3, 0.1), (0.03, 0.0)])
def test_19_of_20_intervals_hold_the_true_difference(only_first, only_second):
    random = np.random.default_rng(0)
    draws = random.multinomial(150, [only_first, only_second, 1 - only_first - only_second], 2000)
    intervals = np.array([Pair(int(first), int(second), 150).interval for first, second, _ in draws])
    held = (intervals[:, 0] <= only_first - only_second) & (only_first - only_second <= intervals[:, 1])
    assert 0.93 <= held.mean() <= 0.985


def test_as_many_pictures_as_are_said_to_be_needed_are_enough_four_times_in_five():
    pair = Pair(14, 10, 500)
    needed = comparison.pictures_needed(pair)
    shares = [pair.only_first / pair.pictures, pair.only_second / pair.pictures]
    draws = np.random.default_rng(0).multinomial(needed, [*shares, 1 - sum(shares)], 500)
    told_apart = [comparison.mcnemar(int(first), int(second)) < 0.05 for first, second, _ in draws]
    assert needed > 500 and np.mean(told_apart) == pytest.approx(0.8, abs=0.06)


def test_the_number_needed_is_that_of_the_source():
    """Connor (1987): differing 0.3, difference 0.1, 5 % on two sides, power 80 %."""
    assert comparison.pictures_needed(Pair(20, 10, 100)) == 234
    assert comparison.pictures_needed(Pair(3, 3, 100)) is None


def test_more_tests_need_more_pictures_and_five_that_differ_are_never_enough():
    assert comparison.pictures_needed(Pair(20, 10, 100), tests=3) > 234
    assert comparison.mcnemar(5, 0) > 0.05 > comparison.mcnemar(6, 0) and comparison.pictures_needed(Pair(1, 0, 1)) == 6


def test_many_tests_are_corrected_as_holm_says():
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([0.03]) == [0.03] and comparison.holm([0.9, 0.8]) == [1, 1]
