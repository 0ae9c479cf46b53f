# Every target works on a fresh clone with only Python 3.11 or newer and make, as root or not.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
DOCUMENT := app/about/openapi.json
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

PARALLEL_PYTEST := $(BIN)/pytest --numprocesses auto
QUICK_TESTS := $(addprefix tests/,api auth fields listing patients records test_architecture.py test_openapi.py test_openapi_schemas.py)

# containers often set it; the tests start many processes, each of which would compile all modules anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-quick chaos bench bench-quick bench-finding install check format migration lock openapi clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36mmake %-13s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run ## serve http://127.0.0.1:8000 with demo data; elsewhere: make run PORT=8001
	@$(BIN)/patients-api serve --demo --port $(PORT)

test: .venv/dev ## run all tests
	@$(PARALLEL_PYTEST)

test-quick: .venv/dev ## run what a change to a resource breaks first, in less than a minute
	@$(PARALLEL_PYTEST) -m "not chaos and not alone and not crowd" $(QUICK_TESTS)

chaos: .venv/dev ## kill the server, its workers and PostgreSQL under load, restore a backup, attack it; a quarter of an hour
	@$(BIN)/pytest -m chaos --capture=no tests/chaos tests/hostile tests/test_conformance.py

bench: .venv/bench ## measure the service beside its peers; a quarter of an hour
	@$(BIN)/python -m benchmarks.run

bench-quick: .venv/bench ## less of the same, in less than a minute
	@$(BIN)/python -m benchmarks.run --quick

install: .venv/run .venv/dev ## make the environment in .venv

bench-finding: .venv/bench ## how fast and how well patients are found, to a million; an hour
	@$(BIN)/python -m benchmarks.finding speed
	@$(BIN)/python -m benchmarks.finding quality
	@$(BIN)/python -m benchmarks.finding desk

check: .venv/dev ## lint, format, types, and what migrations would do to a database in use
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m migrations.lint

format: .venv/dev ## format, and fix what the linter can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

migration: .venv/dev ## write a migration for changes to the models: make migration m="patient nickname"
	@$(BIN)/python -m migrations "$(m)"
	@$(BIN)/ruff check --quiet --fix migrations
	@$(BIN)/ruff format --quiet migrations

openapi: .venv/dev ## update openapi.json
	@$(BIN)/patients-api openapi --rebuild > $(DOCUMENT).new && mv $(DOCUMENT).new $(DOCUMENT) || { rm -f $(DOCUMENT).new; exit 1; }

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --upgrade
LOCK := $(COMPILE) pyproject.toml

lock: .venv/dev ## pin the newest versions with their hashes
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | $(COMPILE) - --output-file requirements-build.lock
	@$(LOCK) --output-file requirements.lock
	@$(LOCK) --constraints requirements.lock --extra embedded --output-file requirements-embedded.lock
	@$(LOCK) --constraints requirements-embedded.lock --extra dev --output-file requirements-dev.lock
	@$(LOCK) --constraints requirements-dev.lock --extra bench --output-file requirements-bench.lock

clean: ## remove the environment; the data in .data stay
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv .venv

# what serving needs, the embedded PostgreSQL included
.venv/run: .venv/bin/python requirements-embedded.lock pyproject.toml
	@echo "Installing into .venv, once; about half a minute …"
	@$(PIP) install --require-hashes -r requirements-embedded.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

# and what developing needs
.venv/dev: .venv/run requirements-dev.lock
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# and what the peers that the service is measured beside need
.venv/bench: .venv/run requirements-bench.lock
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@
