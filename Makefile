# Everything a person or CI does with this clone. Needs git, make and Python 3; the rest comes from uv.lock.
#
# Nothing is written outside the clone: the environment is .venv, uv and its cache are .uv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
READY := $(VENV)/.ready
ARGS ?=

# Compiled modules are kept beside their sources, whatever the environment says: starting a command takes half as long.
export PYTHONDONTWRITEBYTECODE :=
# Tools keep their caches in the clone.
export RUFF_CACHE_DIR := .ruff_cache
export MYPY_CACHE_DIR := .mypy_cache

# -- the product ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(READY) ## Show the main job on this machine: real sockets, a real client, a ledger verified and then tampered with
	@$(VENV)/bin/exeat demo $(ARGS)

.PHONY: up
up: $(READY) ## Run Exeat here until interrupted (ARGS="--help" says what it takes)
	@exec $(VENV)/bin/exeat up $(ARGS)

# -- checks -----------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(READY) ## Run the tests (ARGS="tests/ledger -x" narrows them)
	@$(VENV)/bin/python -m pytest -n 3 --dist worksteal -m "not campaign" $(ARGS)

.PHONY: campaign
campaign: $(READY) ## Run the long campaigns: kills under load, soak, every bit flipped
	@$(VENV)/bin/python -m pytest -m campaign $(ARGS)

.PHONY: fuzz
fuzz: $(READY) ## Fuzz the request and the response parser (ARGS="--seconds 600", "--seed N", "--coverage")
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

.PHONY: lint
lint: $(READY) ## Check style and formatting
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

.PHONY: format
format: $(READY) ## Apply the formatting and the safe fixes
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

.PHONY: types
types: $(READY) ## Check types (mypy --strict)
	@$(VENV)/bin/mypy -p control -p proxy -p rules -p credentials -p ledger -p benchmarks

.PHONY: imports
imports: $(READY) ## Check that imports point one way
	@$(VENV)/bin/lint-imports

.PHONY: check
check: lint types imports test ## Everything CI checks, on this Python

.PHONY: bench
bench: $(READY) ## Measure this product beside its peers (ARGS="--help" says how)
	@$(VENV)/bin/python -m benchmarks $(ARGS)

.PHONY: stress
stress: $(READY) ## Measure what one account's flood costs another (two to three minutes)
	@$(VENV)/bin/python -m benchmarks.stress $(ARGS)

.PHONY: bench-decide
bench-decide: $(READY) ## Measure what a decision costs, by rules and by tenants (five minutes)
	@$(VENV)/bin/python -m benchmarks.deciding $(ARGS)

.PHONY: bench-limits
bench-limits: $(READY) ## Measure what limits cost a call, embedded and shared (one minute)
	@$(VENV)/bin/python -m benchmarks.limits $(ARGS)

.PHONY: bench-workers
bench-workers: $(READY) ## Measure what a second worker adds (two minutes)
	@$(VENV)/bin/python -m benchmarks.workers $(ARGS)

# -- the environment --------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(READY) ## Make the environment and nothing else

$(READY): uv.lock pyproject.toml .python-version .ci/bootstrap
	@sh .ci/bootstrap
	@touch $@

.PHONY: clean
clean: ## Remove what these commands made (never a state folder)
	@rm -rf .venv .venv-* .uv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist benchmarks/out

.PHONY: help
help: ## Say what can be done here
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r a b; do printf '%-18s %s\n' "$$a" "$$b"; done
