# Two commands set everything up: `make demo` and `make test`. Both are quick a second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-full test slow clean

demo: $(VENV)/.demo
	$(BIN)/convirt demo

demo-full: $(VENV)/.demo
	$(BIN)/convirt demo --full --out runs/demo-full

test: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not slow"

slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "convirt needs Python 3.11 or newer: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist
