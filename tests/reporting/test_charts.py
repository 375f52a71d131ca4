import re

import numpy as np
import pytest

from finetune.reporting import charts
from finetune.reporting.charts import Axis, Series


@pytest.mark.parametrize('values', [[0.9, 0.95], [1.0, 1.0], [0.0, 0.0], [0.9512, 0.9514], [0.0, 1.0]])
def test_an_axis_of_shares_holds_its_values_and_never_leaves_0_to_1(values):
    axis = charts.axis_of_shares('right', values)
    assert 0 <= axis.low <= min(values) and max(values) <= axis.high <= 1.0011
    assert len({text for _, text in axis.ticks}) == len(axis.ticks) <= 12


@pytest.mark.parametrize('values', [[0.001, 0.002], [3.0, 3.0], [-5, 1e6], [0.0, 0.0], [1, 2]])
def test_an_axis_has_some_round_numbers(values):
    axis = charts.axis('loss', values)
    assert axis.low <= min(values) and max(values) <= axis.high and 2 <= len(axis.ticks) <= 12
    assert len({text for _, text in axis.ticks}) == len(axis.ticks)


def test_epochs_are_whole():
    assert [text for _, text in charts.axis('epoch', [1, 3], least_step=1).ticks] == ['1', '2', '3']


def test_a_logarithmic_axis_puts_doubling_at_equal_distances():
    axis = Axis('pictures', 100, 400, [], logarithmic=True)
    assert [axis.share(value) for value in (100, 200, 400)] == pytest.approx([0, 0.5, 1])


def test_two_lines_differ_in_more_than_colour():
    both = charts.chart('t', 'd', charts.axis('x', [0, 1]), charts.axis('y', [0, 1]), [
        Series('one', [(0, 0), (1, 1)]), Series('two', [(0, 1), (1, 0)], 'two')])
    assert 'line one' in both and 'line two' in both and '<circle' in both and '<rect class="dot two"' in both


def test_a_long_line_is_thinned():
    long = charts.chart('t', 'd', charts.axis('x', [0, 9999]), charts.axis('y', [0, 1]), [
        Series('', [(epoch, 0.5) for epoch in range(10_000)])])
    assert len(long) < 10_000 and '<circle' not in long


def test_a_matrix_writes_every_count_that_is_not_0_and_frames_what_is_right():
    drawn = charts.matrix(np.array([[3, 0], [2, 5]]), ['<a>', 'b' * 40], 'title', 'description')
    assert drawn.count('<rect class="right"') == 2 and drawn.count('<rect class="wrong"') == 1
    assert re.findall(r'text-anchor="middle">(\d)', drawn) == ['3', '2', '5']
    assert '&lt;a&gt;' in drawn and 'b' * 40 not in drawn


def test_what_a_chart_says_cannot_end_it():
    drawn = charts.chart('"><b>', "<c>'", charts.axis('<x>', [0, 1]), charts.axis('y', [0, 1]), [Series('<s>', [])])
    assert not re.search(r'<[bcxs]>', drawn)
