# Each target works alone on a fresh clone; `make` or `make help` lists them.
#
#   PYTHON=python3.12                                     the interpreter to install with
#   CHAOS_OUT=chaos-results                               folder in which `make chaos` goes on
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu      where to get torch, here its CPU-only build;
#                                                         left out: where pip looks anyway
PYTHON ?= python3
TORCH_INDEX ?=
CHAOS_OUT ?= chaos-results

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/pytest -q --numprocesses auto --maxprocesses 4
COVERAGE := --cov --cov-report=term --cov-fail-under=90

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check lint fuzz chaos compose-test clean

help: ## list the targets
	@awk -F ":.*## " '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## search the handwritten digits by grid, random and TPE; in less than half a minute
	@$(BIN)/python examples/demo.py

# Python 3.12 and later count lines at no cost; in 3.11 it makes tests of the service 1.4 times as long.
test: lint ## everything: lint and the whole suite, on SQLite and PostgreSQL; from Python 3.12 on its coverage too
	@if $(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 12))"; \
	  then COVERAGE_CORE=sysmon $(PYTEST) $(COVERAGE); else $(PYTEST); fi

coverage: lint ## the suite once more, coverage at least 90 %
	@$(PYTEST) $(COVERAGE)

check: lint ## format, lint, imports, types and the fast tests
	@$(PYTEST) -m "not slow"

lint: $(INSTALLED) ## format, lint, imports and types
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary tests examples benchmarks

fuzz: $(INSTALLED) ## the API against its document: at least FUZZ_CASES=10000 requests a database
	@FUZZ_CASES=$(or $(FUZZ_CASES),10000) $(BIN)/pytest -q --capture=no tests/fuzz/test_document.py

chaos: $(INSTALLED) ## the long run: hundreds of faults of each kind, on SQLite and PostgreSQL; an hour or two
	@mkdir -p "$(CHAOS_OUT)"
	@trap 'kill $$!' INT TERM; \
	  $(BIN)/python -m tests.chaos --database sqlite --out "$(CHAOS_OUT)/sqlite.jsonl" & \
	  $(BIN)/python -m tests.chaos --database postgresql --out "$(CHAOS_OUT)/postgresql.jsonl"; \
	  status=$$?; wait $$! && exit $$status

compose-test: ## the service in containers; needs Docker
	@$(PYTHON) tests/compose/run

clean: ## remove .venv, caches and demo-data (never ridgeline-data)
	@rm -rf $(VENV) build dist src/*.egg-info demo-data .coverage .coverage.* .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c "import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
	  \"Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is %d.%d: make PYTHON=python3.12\" \
	  % sys.version_info[:2])"
	@echo "Installing into $(VENV); torch is large, so this can take some minutes ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  "torch==2.13.*" $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
