"""One picture, one answer, whoever asks and whatever its format: R18."""

import pytest

from tools.torture import failures, one_answer

pytestmark = pytest.mark.kernels


def test_training_eval_and_predict_give_one_picture_the_same_logits(tmp_path):
    assert not failures(one_answer.of_all_kinds(tmp_path), at_least=24)
