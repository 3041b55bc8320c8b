# Everything a developer needs, on a machine that has nothing but Python 3.11 or newer and make.
# `PYTHON=python3.12 make test` uses another interpreter (after `make clean`, if .venv is there already).

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Most tests wait for something most of the time, so more of them than there are cores.
TEST_PROCESSES ?= 4

.DEFAULT_GOAL := help
.PHONY: help install check format test demo bench clean

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' Makefile | sort | while IFS= read -r line; do \
		printf '  make %-9s%s\n' "$${line%%:*}" "$${line##*## }"; done

install: $(STAMP) ## Set up .venv with this package (editable) and all development tools
	@:

# The stamp is touched last: an interrupted installation is done again.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: run 'apt-get install python3-venv' first." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "reproq-prefork needs Python 3.11 or newer: try 'PYTHON=python3.11 make install'." >&2; exit 1; }
	@echo "Setting up .venv (a minute on a slow network) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-warn-script-location \
		--constraint constraints.txt --editable '.[binary,embedded,dev]'
	@touch $(STAMP)

check: $(STAMP) ## Format, lint, types and import contracts; changes nothing
	@$(BIN)/ruff format --check --quiet . || { echo "Run 'make format' to format these files:"; \
		$(BIN)/ruff format --check . ; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }
	@echo "check: format, lint, types and import contracts hold"

format: $(STAMP) ## Format the code and fix what ruff can fix by itself
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

test: $(STAMP) ## Run the whole test suite; its first line says which PostgreSQL it uses
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

demo: $(STAMP) ## Watch 200 tasks, a killed worker and two replays, on a private PostgreSQL
	@$(BIN)/reproq-prefork demo

bench: $(STAMP) ## Measure throughput and pick-up latency, on a private PostgreSQL
	@$(BIN)/python -m benchmarks

clean: ## Remove .venv and everything that tools have left here
	@rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
