# On a machine with Python >= 3.11, make and git: `make demo` or `make test` is all it takes.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= auto
SEEDS ?= 100000

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint type check crash-long seeds-long bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("batchrunner needs Python 3.11 or newer; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## make .venv and install batchrunner in it

demo: $(STAMP) ## the main job against the built-in simulator: no key, no cost
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh manifests/demo.sh

test: $(STAMP) ## every test of the gate
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(STAMP) ## ruff and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP) ## mypy, strict, tests too
	$(BIN)/mypy

check: lint type test ## all of the above

crash-long: $(STAMP) ## the crash enumeration, three times as wide (minutes)
	BATCHRUNNER_CRASH_SCALE=3 $(BIN)/python -m pytest -n $(JOBS) tests/crash

seeds-long: $(STAMP) ## the deterministic simulation over SEEDS seeds
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

bench: $(STAMP) ## measure, and print ratios
	$(BIN)/python -m benchmarks

clean: ## remove what was made here
	rm -rf $(VENV) dist build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
