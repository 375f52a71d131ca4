"""Records that were damaged after they were written are noticed at or before the damage: R8.

What is stale, missing, foreign, compressed or contradicts itself is in tests/records/test_dataset.py.
"""

import pytest

from tools.torture import failures, reading


@pytest.mark.parametrize('step', [400, pytest.param(23, marks=pytest.mark.slow)])
def test_no_damaged_byte_and_no_cut_of_a_shard_or_of_the_manifest_is_silent(tmp_path, step):
    assert not failures(reading.every_byte(tmp_path, seed=3, count=0, step=step), at_least=8000 // step)
