"""The arithmetic of the report, against counts made by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.console.errors import UsageError
from finetune.evaluation import metrics

LABELS = ('background', 'daisy', 'rose', 'tulip')


def answers(*pairs: tuple[int, int], classes: int = 4):
    """Labels and logits of a network that gives each (true, answered) its answer with a logit of 3."""
    labels = np.array([true for true, _ in pairs], np.int32)
    logits = np.zeros((len(pairs), classes), np.float32)
    logits[np.arange(len(pairs)), [answered for _, answered in pairs]] = 3
    return labels, logits


def test_precision_counts_right_answers_per_record():
    scores = metrics.score(*answers((1, 1), (1, 2), (2, 2), (3, 3)), LABELS)
    assert (scores.records, scores.right, scores.precision_at_1) == (4, 3, 0.75)


def test_confusion_has_the_truth_in_rows_and_the_answer_in_columns():
    scores = metrics.score(*answers((1, 2), (1, 2), (3, 1)), LABELS)
    assert scores.confusion([1, 2, 3]).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert scores.confusion([1, 2]).tolist() == [[0, 2], [0, 0]]
    assert scores.confusions() == [(1, 2, 2), (3, 1, 1)]


def test_of_very_many_pictures_the_figures_are_the_same_as_of_few_at_a_time(monkeypatch):
    random = np.random.default_rng(0)
    labels, logits = random.integers(4, size=97), random.normal(size=(97, 4)).astype(np.float32)
    whole = metrics.score(labels, logits, LABELS), metrics.worst_mistakes(labels, logits, temperature=2.0)
    monkeypatch.setattr(metrics, 'AT_ONCE', 40)
    scores = metrics.score(labels, logits, LABELS)
    assert (scores.figures(), scores.confusions()) == (whole[0].figures(), whole[0].confusions())
    assert metrics.worst_mistakes(labels, logits, temperature=2.0) == whole[1]


def test_of_very_many_classes_those_are_shown_that_are_mixed_up():
    scores = metrics.score(*answers((1, 1), (2, 3), (3, 3), (5, 4), (5, 4), classes=7), [str(i) for i in range(7)])
    assert scores.most_mixed_up(2) == [4, 5] and scores.most_mixed_up(9) == [1, 2, 3, 4, 5]


def test_a_network_that_says_the_same_of_every_class_gets_no_credit_for_it():
    labels = np.arange(10, dtype=np.int32)
    scores = metrics.score(labels, np.zeros((10, 10), np.float32), [str(i) for i in range(10)])
    assert (scores.precision_at_1, scores.recall_at_5) == (0.1, 0.5)


def test_of_equal_logits_the_lower_class_number_stands_first():
    logits = np.array([[1, 5, 5, 0]], np.float32)
    assert metrics.ranked(logits, 3).tolist() == [[1, 2, 0]]
    assert metrics.rank_of_label(np.array([2]), logits).tolist() == [1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_rank_of_the_true_class_is_its_place_in_the_ranking(records, classes, seed):
    random = np.random.default_rng(seed)
    logits = random.integers(-2, 3, (records, classes)).astype(np.float32)  # Few values: many ties.
    labels = random.integers(0, classes, records)
    places = np.argmax(metrics.ranked(logits, classes) == labels[:, None], axis=1)
    assert metrics.rank_of_label(labels, logits).tolist() == places.tolist()
    assert (metrics.ranked(logits, 1)[:, 0] == logits.argmax(axis=1)).all()


@pytest.mark.parametrize('classes, trivial', [(4, True), (5, True), (6, True), (7, False)])
def test_recall_at_5_of_5_classes_beside_an_unused_background_is_called_trivial(classes, trivial):
    scores = metrics.score(*answers((1, 2), classes=classes), [str(i) for i in range(classes)])
    assert scores.recall_is_trivial == trivial
    assert scores.recall_at_5 == 1.0


def test_the_original_figures_give_the_wilson_interval_of_the_textbook():
    low, high = metrics.wilson(467, 500)
    assert (round(low, 4), round(high, 4)) == (0.9088, 0.9526)


def test_the_interval_is_not_a_point_when_all_or_no_answers_are_right():
    assert metrics.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert metrics.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_per_class_figures_are_those_counted_by_hand():
    scores = metrics.score(*answers((1, 1), (1, 1), (1, 2), (2, 2), (3, 1)), LABELS)
    daisy, rose, tulip = scores.classes
    assert (daisy.label, daisy.records, daisy.answered) == ('daisy', 3, 3)
    assert (daisy.precision, daisy.recall) == (2 / 3, 2 / 3) and math.isclose(daisy.f1, 2 / 3)
    assert (rose.precision, rose.recall) == (0.5, 1.0) and math.isclose(rose.f1, 2 / 3)
    assert (tulip.precision, tulip.recall, tulip.f1) == (None, 0.0, 0.0)


def test_a_background_that_never_occurs_and_is_never_answered_spoils_no_mean():
    scores = metrics.score(*answers((1, 1), (2, 2), (3, 3)), LABELS)
    assert [row.label for row in scores.classes] == ['daisy', 'rose', 'tulip']
    assert scores.figures()['mean_recall'] == 1.0 and scores.figures()['mean_f1'] == 1.0


def test_a_class_missing_from_the_split_but_answered_is_shown_without_a_recall():
    scores = metrics.score(*answers((1, 1), (1, 3)), LABELS)
    tulip = scores.classes[-1]
    assert (tulip.label, tulip.records, tulip.recall, tulip.precision) == ('tulip', 0, None, 0.0)
    assert scores.figures()['mean_recall'] == 0.5
    json.dumps(scores.figures(), allow_nan=False)


def test_probabilities_and_loss_survive_huge_logits():
    logits = np.array([[1e4, 0, 0, 0], [-1e4, 0, -1e4, -1e4]], np.float32)
    assert metrics.probabilities(logits).round(6).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert metrics.score(np.array([0, 1]), logits, LABELS).loss == 0.0


def test_the_loss_is_the_mean_cross_entropy():
    scores = metrics.score(*answers((1, 1), (1, 2)), LABELS)
    of_all = math.log(math.exp(3) + 3)
    assert math.isclose(scores.loss, ((of_all - 3) + of_all) / 2, rel_tol=1e-6)


def test_the_worst_mistake_is_the_one_the_network_was_surest_of():
    labels, logits = answers((1, 1), (1, 2), (2, 3), (3, 1))
    logits[2, 3], logits[3, 1] = 9, 5
    worst = metrics.worst_mistakes(labels, logits, most=2)
    assert [(m.index, m.true, m.answered) for m in worst] == [(2, 2, 3), (3, 3, 1)]
    assert worst[0].probability > worst[1].probability > worst[1].probability_of_true


def test_no_mistakes_is_an_empty_list():
    assert metrics.worst_mistakes(*answers((1, 1))) == []


def test_a_requirement_is_compared_with_the_figure_it_names():
    least, most = metrics.requirements('precision@1>=0.9, loss<0.5')
    assert str(least) == 'precision@1>=0.9'
    assert least.holds({'precision@1': 0.9}) and not least.holds({'precision@1': 0.8999})
    assert most.holds({'loss': 0.4}) and not most.holds({'loss': 0.5})
    assert metrics.requirements('') == []


@pytest.mark.parametrize('text', ['precision@1', 'precision>=0.9', 'precision@1=0.9', 'loss<low', ','])
def test_a_malformed_requirement_is_answered_with_the_grammar(text):
    with pytest.raises(UsageError, match='expected NAME>=NUMBER '):
        metrics.requirements(text)


def test_a_percentage_is_not_taken_for_a_share():
    with pytest.raises(UsageError, match=r'for 90 % write 0\.9'):
        metrics.requirements('precision@1>=90')


def test_every_requirable_figure_is_one_that_is_computed():
    assert tuple(metrics.score(*answers((1, 1)), LABELS).figures()) == tuple(metrics.REQUIRABLE)
