"""No picture crashes, hangs or deceives a build, and every file is accounted for: R1 to R5."""

import pytest

from tests import corpus
from tools.torture import failures, pictures


@corpus.needs_corpus
def test_the_whole_corpus_becomes_right_pictures_or_reasons(tmp_path):
    """In one test, as the corpus takes half a minute to write: with little memory, FIFOs, devices, bombs, odd names."""
    assert not failures(pictures.corpus_becomes_records(tmp_path, seed=0, count=0), at_least=236)
    assert not failures(pictures.folders_and_labels(tmp_path, seed=0, count=0), at_least=14 + 2 * 23)


def test_damaged_pictures_are_judged_the_same_twice_and_what_is_admitted_trains():
    cases, admitted = pictures.judge_mutants(seed=0, numbers=range(240))
    assert not failures(cases, at_least=240) and 24 < admitted < 240


@pytest.mark.slow
def test_no_damaged_picture_ends_the_process_that_judges_it(tmp_path):
    assert not failures(pictures.mutants(tmp_path, seed=1, count=2000), at_least=2000)
