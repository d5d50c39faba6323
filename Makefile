# Every command of the project. `make help` prints this list.
# The two that matter first: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml 2>/dev/null) Cargo.toml Cargo.lock

.PHONY: help
help: ## list all targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up: stamps make the second run quick ---------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dspex needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.deps: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -q --group dev
	@touch $@

$(VENV)/.built: $(VENV)/.deps $(RUST_SOURCES) pyproject.toml
	@command -v cargo >/dev/null || { echo 'dspex builds its core with Rust: install a stable toolchain (cargo)'; exit 1; }
	$(BIN)/maturin develop --release --quiet
	@touch $@

.PHONY: build
build: $(VENV)/.built ## create .venv and build the release extension
