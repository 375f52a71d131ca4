# `make demo` and `make test` set up what they need; both can be run again.
PYTHON ?= python3
VENV := .venv

.PHONY: demo test lint clean

demo: $(VENV)/ready
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh tools/demo.sh

test: lint
	$(VENV)/bin/python -m pytest
	TF_ENABLE_ONEDNN_OPTS=0 $(VENV)/bin/python -m pytest -m kernels

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
