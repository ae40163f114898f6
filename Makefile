# The same few commands everywhere: by hand, in pre-commit, in CI.
# Each works as the first command on a fresh clone: it makes .venv itself (.ci/environment).

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
ENVIRONMENT := .venv/.synced
PACKAGES := datops_assets datops_assets_tests benchmarks docs examples setup.py
ARGS :=
# One more than the two cores of a small machine: tests wait for servers, processes and locks as much as they work.
WORKERS := 3
ONLY :=
PORT := 3000

# What the caller's shell has set for other projects must not reach ours. uv keeps what says how to
# reach packages (index, cache, certificates, proxy); what says where and what to install goes.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONDONTWRITEBYTECODE CONDA_PREFIX
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIRE_HASHES PIP_CONSTRAINT PIP_REQUIREMENT
KEPT := UV_CACHE_DIR UV_NO_CACHE UV_OFFLINE UV_NATIVE_TLS UV_SYSTEM_CERTS UV_HTTP% UV_CONCURRENT% UV_LINK_MODE \
	UV_INDEX% UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INSECURE_HOST UV_KEYRING_PROVIDER UV_NO_PROGRESS UV_LOCK_TIMEOUT
unexport UV_PROJECT $(filter-out $(KEPT), $(filter UV_%, $(.VARIABLES)))
ifneq ($(origin PYTHON), command line)
unexport PYTHON
endif

# An environment that was moved, copied or lost its Python counts as missing.
ifneq ($(shell test -x $(BIN)/python && cat $(ENVIRONMENT) 2>/dev/null),$(CURDIR))
.PHONY: $(ENVIRONMENT)
endif

$(ENVIRONMENT): uv.lock pyproject.toml setup.py .ci/environment
	@.ci/environment

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(ENVIRONMENT) ## from nothing to gold: a made-up shop through the whole path
	@$(BIN)/datops demo

.PHONY: up
up: $(ENVIRONMENT) ## warehouse, web UI and daemon, with the shop's sensors on (PORT=3001 for another port)
	@$(BIN)/datops up --port $(PORT)

.PHONY: test
test: $(ENVIRONMENT) ## the tests that CI runs (ARGS="-k word" for some of them)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(ENVIRONMENT) ## every test, the slow ones too
	@DATOPS_TESTS_ON_DISK=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: dev
dev: $(ENVIRONMENT) ## the environment, and checks before each commit
	@$(BIN)/pre-commit install
	@echo "ready: . .venv/bin/activate, then make test"

CHECKS := check-format check-lint check-types check-imports check-lock check-docs
.PHONY: check $(CHECKS)
check: $(ENVIRONMENT) ## format, lint, types, import layers, lock, documents; all of them, then the verdict
	@$(MAKE) --no-print-directory --keep-going $(CHECKS)

check-format: $(ENVIRONMENT)
	@$(BIN)/ruff format --check $(wildcard $(PACKAGES))

check-lint: $(ENVIRONMENT)
	@$(BIN)/ruff check $(wildcard $(PACKAGES))

check-types: $(ENVIRONMENT)
	@$(BIN)/mypy

check-imports: $(ENVIRONMENT)
	@$(BIN)/lint-imports --no-logo

# A fresh lock is recognised without the network; only a stale one would need it.
check-lock: $(ENVIRONMENT)
	@$(BIN)/uv lock --check --offline --quiet || { echo "uv.lock does not match pyproject.toml: make lock" >&2; exit 1; }
	@for file in requirements requirements-dev; do \
		$(MAKE) --silent --no-print-directory print-$$file | cmp -s - $$file.txt || \
		{ echo "$$file.txt does not match uv.lock: make lock" >&2; exit 1; }; done

check-docs: $(ENVIRONMENT)
	@$(BIN)/python -m pytest -q -p no:xdist datops_assets_tests/docs/test_pages.py

.PHONY: fmt
fmt: $(ENVIRONMENT) ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix --quiet $(wildcard $(PACKAGES)) || true
	@$(BIN)/ruff format $(wildcard $(PACKAGES))

.PHONY: lock print-requirements print-requirements-dev
lock: $(ENVIRONMENT) ## after a change of dependencies: uv.lock and both requirements files (needs the network)
	@$(BIN)/uv lock
	@for file in requirements requirements-dev; do \
		$(MAKE) --silent --no-print-directory print-$$file >$$file.txt || exit 1; done

EXPORT := $(BIN)/uv export --frozen --quiet --no-emit-project --no-header --offline
print-requirements:
	@echo "# The packages datops runs on, exported from uv.lock by make lock."
	@$(EXPORT) --no-dev

print-requirements-dev:
	@echo "# requirements.txt and the tools to work on datops, exported from uv.lock by make lock."
	@$(EXPORT)

.PHONY: bench
bench: $(ENVIRONMENT) ## side by side with the bare tools; ONLY=<domain> for one
	@$(BIN)/python -m benchmarks $(ONLY)

.PHONY: docs
docs: $(ENVIRONMENT) ## write docs/reference/ from the code; then check links, names and every example
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m pytest -q -p no:xdist datops_assets_tests/docs

.PHONY: build
build: $(ENVIRONMENT) ## wheel and sdist, into dist/
	@rm -rf dist
	@$(BIN)/uv build --quiet --out-dir dist

.PHONY: clean
clean: ## remove what the tools left; .datops (the warehouse) stays
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache ./*.egg-info
