# One word per job; `make help` lists them. PYTHON=/path/to/python3 picks another interpreter for the virtual
# environment.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
export PYTHONUNBUFFERED := 1
# Thousands of processes start during the tests; none of them should have to compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The demo needs perdure alone, and is not to wait for Ray and other things that only development needs. Where .venv is
# there already, the demo takes that.
DEMO := $(if $(wildcard $(STAMP)),$(VENV),.venvs/demo)
DEMO_STAMP := $(DEMO)/.installed
PEERS := $(foreach peer,dbos flyte restate absurd,.venvs/$(peer)/.installed) .venvs/restate-server/.installed
NPM := npm install --no-save --no-package-lock --no-audit --no-fund --no-update-notifier --ignore-scripts --loglevel error
BENCH_ARGS ?=
TORTURE_ARGS ?=
# Most tests wait for processes now and then; six at a time keep two cores busy and leave none of them short.
PARALLEL := -n 6
# The versions of Python that the core's tests run on beside that of .venv, where they are installed.
PYTHONS := 3.12 3.13 3.14
# Engines and clusters bring processes of their own.
PARALLEL_ENGINES := -n 3
# Beside engines and clusters.
PARALLEL_BESIDE := -n 4

.PHONY: help venv demo test test-engines test-elsewhere test-long torture planted check format docs debian screenshots bench soak clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 16

venv: $(STAMP) ## the virtual environment .venv with everything that development needs
	@:

$(STAMP): pyproject.toml constraints.txt scripts/venv.sh
	@scripts/venv.sh $(VENV) -c constraints.txt -e '.[dev]'
	@touch $@

.venvs/demo/.installed: pyproject.toml constraints.txt scripts/venv.sh
	@scripts/venv.sh $(@D) --no-compile -c constraints.txt -e .
	@touch $@

demo: $(DEMO_STAMP) ## a real workflow is killed with SIGKILL half-way and carries on
	@$(DEMO)/bin/python scripts/demo.py

test: check debian ## everything: lint, types, layers, all tests; of the moments of a kill a sample
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests --ignore tests/containers --ignore tests/ray
	@# Tests of engines and clusters mostly wait, so the other parts run beside them.
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-engines test-elsewhere

test-engines:
	$(BIN)/python -m pytest tests/containers/test_engines.py
	$(BIN)/python -m pytest $(PARALLEL_ENGINES) --dist loadgroup tests/ray tests/containers --ignore tests/containers/test_engines.py

test-elsewhere:
	scripts/core_tests.sh $(PYTHONS)
	PERDURE_TEST_STORE=postgres PERDURE_TEST_SAMPLE=31 $(BIN)/python -m pytest $(PARALLEL_BESIDE) --dist worksteal tests/crash -k "not in_processes and not edited and not mismatch and not slow_disk"

test-long: $(STAMP) .venvs/azurite/.installed debian ## what make test takes samples of, whole, and other kinds of buckets: an hour
	for bucket in azure google; do \
		PERDURE_TEST_BUCKET=$$bucket $(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests/integration/test_bucket.py \
			tests/integration/test_remote_files.py tests/kubernetes/test_tree.py || exit; done
	scripts/core_tests.sh --required 3.12 3.13
	PERDURE_TEST_FUZZ=40 $(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests/fuzz --timeout 3600
	PERDURE_TEST_WHOLE=1 $(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests/crash tests/sql --timeout 900
	PERDURE_TEST_WHOLE=1 PERDURE_TEST_STORE=postgres $(BIN)/python -m pytest $(PARALLEL) --dist worksteal tests/crash \
		--timeout 900

torture: $(STAMP) ## random workflows, killed anywhere, against an oracle: half an hour (TORTURE_ARGS="--seconds 60 --seed 1")
	@$(BIN)/python -m tests.torture $(TORTURE_ARGS)

planted: $(STAMP) ## plant each fault of proof/planted in a copy of the sources, and see what catches the fault: hours
	$(BIN)/python -m proof.planted

check: $(STAMP) ## lint, format, types, layers, imports, references and language, without running tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_imports.py
	$(BIN)/python scripts/check_functions.py
	$(BIN)/python scripts/check_references.py
	$(BIN)/python scripts/check_prose.py --quiet

soak: $(STAMP) ## workers under load, kills, backups and collections for HOURS (8; fractions are allowed): every figure flat
	$(BIN)/python -m tests.soak --hours $(or $(HOURS),8)

format: $(STAMP) ## rewrite the sources in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

debian:
	@scripts/debian.sh

docs: $(STAMP) ## the documentation as a site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

screenshots: $(STAMP) ## take the pictures of the web page for README and docs (needs Chromium)
	$(BIN)/python scripts/screenshots.py

bench: $(STAMP) $(PEERS) ## measure the speed budget, write benchmarks/RESULTS.md (BENCH_ARGS=--quick: a few minutes)
	@$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

# Each peer lives apart, so that what it needs never meets what perdure needs. Without them the bench still runs.
.venvs/%/.installed: benchmarks/requirements-%.txt scripts/venv.sh
	@if scripts/venv.sh .venvs/$* -r $<; then touch $@; \
	else echo "$* could not be installed: its rows will be empty." >&2; fi

# restate's server is a binary in an npm package. No scripts are run: one of them would report the installation.
.venvs/restate-server/.installed: benchmarks/restate-server.version
	@mkdir -p $(@D)
	@if ! command -v npm >/dev/null; then \
		echo "restate's server comes from npm, which is not installed: its rows will be empty." >&2; \
	elif $(NPM) --prefix $(@D) "@restatedev/restate-server@$$(cat $<)" >/dev/null; then touch $@; \
	else echo "restate's server could not be installed: its rows will be empty." >&2; fi

# A bucket of Azure's kind for the tests.
.venvs/azurite/.installed: tests/azurite.version
	@mkdir -p $(@D)
	@command -v npm >/dev/null || { echo "Azurite comes from npm: apt-get install npm" >&2; exit 1; }
	@$(NPM) --prefix $(@D) "azurite@$$(cat $<)" >/dev/null
	@touch $@

clean: ## remove everything that can be made again
	rm -rf $(VENV) .venvs .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -rf src/*.egg-info
	find src tests examples benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
