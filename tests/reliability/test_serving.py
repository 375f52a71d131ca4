"""A server that everyone asks at once: R16."""

import pytest

from tools.torture import failures

pytest.importorskip('starlette')
pytest.importorskip('uvicorn')
pytest.importorskip('openvino')

from tools.torture import serving


@pytest.mark.slow
def test_a_server_answers_as_predict_does_whatever_else_it_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(serving.corpus, 'MAKER', tmp_path / 'none')  # The corpus takes half a minute.
    monkeypatch.setattr(serving, 'MEMORY_GROWS', 1.5)  # So few requests are all of the beginning.
    assert not failures(serving.asked_by_everyone(tmp_path, seed=1, count=100), at_least=200)
