# Two commands set everything up: `make demo` and `make test`. Both are quick a second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-full test fast-checks audit fuzz slow clean

demo: $(VENV)/.demo
	$(BIN)/convirt demo

demo-full: $(VENV)/.demo
	$(BIN)/convirt demo --full --out runs/demo-full

# One thread a test process: two processes that each ask for every core wait for each other.
test: fast-checks audit
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" --numprocesses auto --dist worksteal

fast-checks: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src

# Known vulnerabilities of what is installed fail the gate; a missing network does not.
audit: $(VENV)/.dev
	@said=$$($(BIN)/pip-audit --progress-spinner off --timeout 10 --skip-editable 2>&1) || \
		case "$$said" in *"Found "*" known vulnerabilit"*) echo "$$said"; exit 1;; *) said="pip-audit: skipped, no answer from the registry";; esac; \
		echo "$$said" | tail -n 1

# Invariants of reports, tables, ids and DICOM headers: a minute from a seed that is printed (SEED=... repeats it).
SEED ?= $(shell date +%s)
fuzz: $(VENV)/.dev
	FUZZ_SEED=$(SEED) $(BIN)/pytest -q -s tests/test_invariants.py -k short

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
