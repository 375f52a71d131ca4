"""Killed, out of disk, or two at once: the old records or the new ones, whole, and nothing beside them: R6, R9, R10.

R7, the same bytes with any number of processes, and builds that a signal stops are in tests/test_build.py.
"""

import pytest

from tools.torture import builds, failures


@pytest.mark.slow
def test_a_build_that_is_killed_at_any_step_loses_nothing_and_the_next_one_cleans_up(tmp_path):
    assert not failures(builds.killed(tmp_path, seed=0, count=15), at_least=15)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_is_one_sentence_and_the_old_records_stay(tmp_path):
    assert not failures(builds.disk_full(tmp_path, seed=0, count=4), at_least=4)


@pytest.mark.slow
def test_of_two_builds_at_once_one_is_refused_and_the_other_whole(tmp_path):
    assert not failures(builds.two_at_once(tmp_path, seed=0, count=1))
