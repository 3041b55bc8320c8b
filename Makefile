# Everything a developer needs, on a machine that has nothing but Python 3.11 or newer and make.
# `PYTHON=python3.12 make test` uses another interpreter (after `make clean`, if .venv is there already).
#
# The matrix: .venv has the oldest of what is supported (on Python 3.11: Django 5.2 and the backport django-tasks),
# .venv-django60 Django 6.0 alone on Python 3.12, .venv-django61 Django 6.1 with the backport beside it on 3.13 (on
# 3.12 where there is no 3.13). Which Django these two have is said here, for one Python may be in both. .venv-oldest
# has the oldest release of each direct dependency that is allowed.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PYTHON_django60 := 3.12
PYTHON_django61 := 3.13 3.12
DJANGO_django60 := 6.0.10
DJANGO_django61 := 6.1.3
# Most tests wait for something most of the time, so more of them than there are cores.
TEST_PROCESSES ?= 4
# Some of the other queues need Python 3.12: all are measured on it, and so are we, where there is one.
BESIDE_PEERS = $(if $(shell scripts/find-python 3.12 2>/dev/null),.venv-django60,.venv)
PYTEST := python -m pytest -n $(TEST_PROCESSES) --dist worksteal
# The unit tests compute: more of them at once than there are processors gain nothing.
UNIT_PYTEST := python -m pytest -n logical --maxprocesses $(TEST_PROCESSES) --dist worksteal --hypothesis-profile quick
# `make test` opens a browser on one Django; the matrix does on each.
BROWSER_TESTS := tests/django/test_admin_browser.py tests/django/test_example_site.py
# What shows that an old dependency will not do: all that needs no server, and of the rest what each part does most.
OLDEST_TESTS := tests/unit $(addprefix tests/integration/,test_runs.py test_bulk.py test_new_runs.py test_migrate.py \
	test_connection_settings.py test_odd_settings.py test_supervisor.py test_cli.py) \
	tests/django/test_backend.py tests/django/test_workers.py
PIP_INSTALL := python -m pip install -qq --disable-pip-version-check --no-warn-script-location \
	--constraint constraints.txt

# Where nothing compiled may be kept, each process of the tests compiles all of the code again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: install unit test check format demo test-all test-django52 test-django60 test-django61 test-oldest faults chaos fuzz \
	mutants bench bench-against bench-peers chaos-peers clean help

##@ Every day, in this order

install: $(STAMP) ## Set up .venv with this package (editable) and all development tools
	@:

unit: $(STAMP) ## Run the unit tests without a server, in half a minute, with a quarter of the generated examples
	@$(BIN)/$(UNIT_PYTEST) tests/unit

test: $(STAMP) ## Run the suite without the faults, and what needs Django on 6.1 too; the first line names the PostgreSQL
	@if scripts/find-python $(PYTHON_django61) >/dev/null; then \
		$(MAKE) --no-print-directory .venv-django61/.installed && \
		$(BIN)/$(PYTEST) $(BROWSER_TESTS:%=--ignore=%) && .venv-django61/bin/$(PYTEST) tests/django; \
	else \
		echo "test: not run on Django 6.1, for there is no Python $(subst $() , or ,$(PYTHON_django61)) on this machine" >&2; \
		$(BIN)/$(PYTEST); \
	fi

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

demo: $(STAMP) ## Watch 200 tasks, a killed worker and two replays, on a private PostgreSQL
	@$(BIN)/reproq-prefork demo

##@ More tests: before a release, and when you change what they test

test-all: ## Run the suite on all of the matrix, also where a part of it has failed
	@$(MAKE) --no-print-directory --keep-going test-django60 test-django61 test-django52

test-django52: $(STAMP) ## Run the suite without the faults in .venv: on Python 3.11, Django 5.2 and the backport
	@$(BIN)/$(PYTEST)

test-django60: .venv-django60/.installed ## Run what needs Django on 6.0 (Python 3.12)
	@.venv-django60/bin/$(PYTEST) tests/django

test-django61: .venv-django61/.installed ## Run what needs Django on 6.1 (Python 3.13), and the unit tests
	@.venv-django61/bin/$(PYTEST) tests/django tests/unit

test-oldest: .venv-oldest/.installed ## Run the unit tests and a core of the others with the oldest dependencies (Python 3.11)
	@.venv-oldest/bin/$(PYTEST) $(OLDEST_TESTS)

faults: $(STAMP) ## Run what the suite leaves out: all that can go wrong with processes, hosts, networks, servers (as root)
	@$(BIN)/$(PYTEST) -m fault

chaos: $(STAMP) ## Let a kill storm loose for a minute and check its history (SEED=…, MINUTES=…); writes build/chaos
	@$(BIN)/$(PIP_INSTALL) --editable '.[bench]'
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

fuzz: $(STAMP) ## Give the parsers of task output, settings and addresses made-up bytes for a minute (SEED=…, SECONDS=…)
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

mutants: $(STAMP) ## Take out one guard of the code at a time, and see that a test fails (ONLY="a word of its name")
	@$(BIN)/python -m tests.support.mutants $(ONLY)

##@ Measurements

bench: $(STAMP) ## Measure us and the limit for a minute or two, on a private PostgreSQL
	@$(BIN)/python -m benchmarks --quick

bench-against: $(STAMP) ## Measure this checkout and another revision in turn (BASE=main~5, ROUNDS=5); ten minutes
	@$(BIN)/$(PIP_INSTALL) --editable '.[bench]'
	@$(BIN)/python -m benchmarks.against $(or $(BASE),main) --rounds $(or $(ROUNDS),5)

bench-peers: ## Measure all there is, beside other queues, and write docs/performance.md (half an hour)
	@$(MAKE) --no-print-directory $(BESIDE_PEERS)/.installed
	@$(BESIDE_PEERS)/bin/$(PIP_INSTALL) --editable '.[bench]'
	@$(BESIDE_PEERS)/bin/python -m benchmarks

chaos-peers: ## Kill workers of ours and of other queues, and give them odd rows: what do they lose? (half an hour; SEED=…)
	@$(MAKE) --no-print-directory $(BESIDE_PEERS)/.installed
	@$(BESIDE_PEERS)/bin/python -m benchmarks.storm $(if $(SEED),--seed $(SEED))
	@$(BESIDE_PEERS)/bin/python -m benchmarks.storm --odd-rows

##@ Other

clean: ## Remove the environments and everything that tools have left here
	@rm -rf .venv .venv-django60 .venv-django61 .venv-oldest
	@rm -rf build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-15s%s\n", $$1, $$2 }' Makefile

# What the targets need. A stamp is touched last: an interrupted installation is done again.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: run 'apt-get install python3-venv' first." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "reproq-prefork needs Python 3.11 or newer: try 'PYTHON=python3.11 make install'." >&2; exit 1; }
	@echo "Setting up .venv (a minute on a slow network) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/$(PIP_INSTALL) --editable '.[binary,embedded,django,dev]'
	@touch $(STAMP)

.venv-django60/.installed: EXTRAS := binary,embedded,django,test
.venv-django61/.installed: EXTRAS := binary,embedded,django,test
.venv-django61/.installed: BESIDE := django-tasks
.venv-%/.installed: pyproject.toml constraints.txt Makefile
	@test -x .venv-$*/bin/python || scripts/find-python $(PYTHON_$*) >/dev/null || { \
		echo "No Python $(subst $() , or ,$(PYTHON_$*)) for .venv-$*: install it (Debian, pyenv and uv all have it)." >&2; exit 1; }
	@echo "Setting up .venv-$* ..." >&2
	@test -x .venv-$*/bin/python || "$$(scripts/find-python $(PYTHON_$*))" -m venv .venv-$*
	@.venv-$*/bin/$(PIP_INSTALL) --editable '.[$(EXTRAS)]' django==$(DJANGO_$*) $(BESIDE)
	@touch $@

.venv-oldest/.installed: pyproject.toml constraints.txt constraints-oldest.txt Makefile
	@echo "Setting up .venv-oldest ..." >&2
	@test -x .venv-oldest/bin/python || "$$(scripts/find-python 3.11)" -m venv .venv-oldest
	@awk -F== 'NR == FNR { if ($$0 !~ /^#/) oldest[$$1] = 1; print; next } !($$1 in oldest)' \
		constraints-oldest.txt constraints.txt > .venv-oldest/constraints.txt
	@.venv-oldest/bin/$(subst constraints.txt,.venv-oldest/constraints.txt,$(PIP_INSTALL)) \
		--editable '.[binary,embedded,django,test]'
	@touch $@
