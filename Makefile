# Every command of the project. `make help` prints this list.
# The two that matter first: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many tests run at once: with three on two cores they took as long as with two.
JOBS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml 2>/dev/null) Cargo.toml Cargo.lock

.PHONY: help
help: ## list all targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up: stamps make the second run quick ---------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dspex needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.deps: $(VENV)/.created pyproject.toml
	@echo 'installing DSPy and what the tests need into $(VENV)'
	$(BIN)/python -m pip install -q --group dev
	@touch $@

$(VENV)/.built: $(VENV)/.deps $(RUST_SOURCES) pyproject.toml
	@command -v cargo >/dev/null || { echo 'dspex builds its core with Rust: install a stable toolchain (cargo)'; exit 1; }
	@echo 'compiling the Rust core: one to four minutes the first time, half a minute later'
	PIP_QUIET=1 $(BIN)/maturin develop --release
	@touch $@

.PHONY: errors-page
errors-page: build ## write docs/errors.md anew from the table of codes
	$(BIN)/dspex errors > docs/errors.md

.PHONY: build
build: $(VENV)/.built ## create .venv and build the release extension

# --- the two that matter first -------------------------------------------------------------------------

.PHONY: demo
demo: build ## answer real questions by DSPy, in workers and in Rust, and compare them (ARGS="--limit 5")
	@$(BIN)/python docs/examples/demo.py $(ARGS)

.PHONY: example
example: build ## a pipeline that is killed in the middle and goes on where it was (ARGS="--limit 10")
	@$(BIN)/python docs/examples/pipeline.py $(ARGS)

# Debian's package starts a service unless something forbids it.
.PHONY: redis-server
redis-server: ## install the server that tests of dspex.stores.Redis start, if it is missing (Debian, as root)
	@command -v redis-server >/dev/null || { \
		policy=/usr/sbin/policy-rc.d; made=; \
		if [ ! -e $$policy ]; then printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; made=1; fi; \
		failed=; { apt-get update -q && apt-get install -y -q --no-install-recommends redis-server; } || failed=1; \
		if [ -n "$$made" ]; then rm -f $$policy; fi; [ -z "$$failed" ]; }

TESTS := test-rust test-python parity-33

.PHONY: test
test: build ## run every test, each part even if one before it failed: Rust, Python, DSPy 3.3 (some 20 minutes)
	@failed=; total=$$SECONDS; \
	for part in $(TESTS); do \
		start=$$SECONDS; echo "== $$part"; \
		$(MAKE) $$part || failed="$$failed $$part"; \
		echo "== $$part: $$((SECONDS - start)) s"; \
	done; \
	echo "== all: $$((SECONDS - total)) s$${failed:+, failed:$$failed}"; [ -z "$$failed" ]

.PHONY: test-rust
test-rust: ## run the Rust tests
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --workspace --locked; \
	else cargo test --workspace --locked --lib --tests; fi
	cargo test --workspace --locked --doc

.PHONY: test-python
test-python: build ## run the Python tests (ARGS="-k router")
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

.PHONY: test-coverage
test-coverage: build ## the same, and which lines they reach: half as long again
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term $(ARGS)

# --- quality -------------------------------------------------------------------------------------------

.PHONY: check
check: build ## formatting, clippy, ruff, mypy --strict, mypy and pyright of users' programs, stubtest
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_typing.py
	$(BIN)/python -m mypy.stubtest dspex._core

.PHONY: format
format: build ## format all code in place
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# --- packages ------------------------------------------------------------------------------------------

.PHONY: bench-pool
bench-pool: build ## worker pools beside their peers, as ratios of one run (ARGS="quick no_op")
	@$(BIN)/python -m pip install -q --group peers || echo 'Ray cannot be had here: it is left out'
	$(BIN)/python benches/bench_pool.py $(ARGS)

.PHONY: bench-pipelines
bench-pipelines: build ## pipelines beside LangGraph, pydantic-graph, DBOS, a dspy.Module and asyncio, in one run
	@$(BIN)/python -m pip install -q --group peers || echo 'some peers cannot be had here: they are left out'
	$(BIN)/python benches/bench_pipelines.py

.PHONY: bench-sessions
bench-sessions: build ## sessions beside OpenAI Agents' and LangGraph's, with SQLite and Redis, in one run
	@$(BIN)/python -m pip install -q --group peers || echo 'some peers cannot be had here: they are left out'
	$(BIN)/python benches/bench_sessions.py

.PHONY: test-ray
test-ray: build ## the contract of a pool's backend on a Ray cluster of this machine (installs Ray)
	$(BIN)/python -m pip install -q 'ray>=2.40'
	DSPEX_TEST_RAY=1 $(BIN)/python -m pytest tests/integration/test_pool_backends.py -k ray $(ARGS)

.PHONY: deployments
deployments: build ## one of three model servers goes wrong under load, in nine ways (ARGS="5 300")
	$(BIN)/python -m tests.load.deployments $(ARGS)

.PHONY: storm-sessions
storm-sessions: build ## kill workers and hosts of 200 counting sessions for 60 s; no count may be wrong (ARGS="10")
	$(BIN)/python -m tests.load.session_storm $(ARGS)

.PHONY: storm
storm: build ## kill a random worker every 300 ms under load for 60 s; no call may be lost (ARGS="10")
	$(BIN)/python -m tests.load.storm $(ARGS)

.PHONY: soak-lm
soak-lm: build ## 200,000 calls of a model's client through every fault; memory must stay flat (ARGS="20000")
	$(BIN)/python -m tests.load.model_soak $(ARGS)

.PHONY: soak-wire
soak-wire: build ## 100,000 calls with values up to 32 MiB, cancels and kills; memory must stay flat (ARGS="20000")
	$(BIN)/python -m tests.load.wire_soak $(ARGS)

.PHONY: outage
outage: build ## a pool dies and comes back under 500 calls/s; no caller may get an error (ARGS="calls")
	$(BIN)/python -m tests.load.outage $(ARGS)

.PHONY: chaos
chaos: build ## every kind of call and fault at once, in random order, 40 rounds of seconds (ARGS="rounds seed")
	PYTHONASYNCIODEBUG=1 $(BIN)/python -m tests.load.chaos $(ARGS) 2> >(grep -v '^Executing <' >&2)

.PHONY: soak
soak: build ## 200,000 calls through one pool; memory and descriptors must stay flat (ARGS="20000")
	$(BIN)/python -m tests.load.soak $(ARGS)

# On Linux zig links against glibc 2.17, whatever this machine has.
MANYLINUX := $(if $(filter Linux,$(shell uname -s)),--zig --compatibility manylinux2014)

.PHONY: wheel
wheel: build ## build the wheel into dist/, for Linux as manylinux2014
	$(BIN)/python -m pip install -q --group package
	PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" \
		$(BIN)/maturin build --release --locked $(MANYLINUX) --out dist

.PHONY: sdist
sdist: build ## build the source distribution into dist/
	$(BIN)/maturin sdist --out dist

.PHONY: package-check
package-check: ## build wheel and sdist, install each into an empty environment, run the demo's program there
	PYTHON=$(PYTHON) ./.ci/package-check

.PHONY: clean
clean: ## remove everything the other targets made
	rm -rf $(VENV) $(VENV33) target dist .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python -name '*.so' -delete

# --- signatures: what runs longer than a test should ---------------------------------------------------

TOOLS := target/tools
TARPAULIN := $(TOOLS)/bin/cargo-tarpaulin

$(TARPAULIN):
	cargo install cargo-tarpaulin --version 0.37.5 --locked --quiet --root $(TOOLS)

.PHONY: fuzz
fuzz: export FUZZ_SECONDS ?= 60
fuzz: ## throw mutated texts at the parsers, FUZZ_SECONDS (60) each; what breaks one joins testdata/
	cargo test --release --locked -p dspex-core --test signature --test replies --test prompts no_ -- --nocapture

.PHONY: coverage
coverage: build $(TARPAULIN) ## line coverage of signatures, in Python and in Rust; both must be 100 %
	$(BIN)/python -m pytest -q tests/unit/test_signature.py tests/unit/test_signature_errors.py \
		tests/parity/test_signature.py --cov=dspex.signature --cov-report=term-missing --cov-fail-under=100
	CARGO_PROFILE_DEV_OPT_LEVEL=0 $(TARPAULIN) tarpaulin --engine llvm --skip-clean \
		-p dspex-core --test signature --include-files 'rust/core/src/signature/*' \
		--target-dir target/coverage --out Stdout --fail-under 100

.PHONY: parity
parity: build ## the differential tests against the installed DSPy, with tens of thousands of examples
	HYPOTHESIS_PROFILE=parity $(BIN)/python -m pytest -n $(JOBS) --timeout 7200 tests/parity

# DSPy 3.3 lives in an environment of its own, with this checkout's sources and the extension that `build` makes.
VENV33 := .venv33
BIN33 := $(VENV33)/bin
# A pool that starts imports DSPy 3.3 anew, for five seconds: of the tests with workers, those that share one.
# ARGS="tests/integration/test_worker_predict.py tests/integration/test_worker_modules.py" runs more.
TESTS33 := tests/parity tests/unit/test_dialects.py tests/unit/test_adapters.py tests/unit/test_worker_failures.py \
	tests/unit/test_cli_diff.py \
	tests/integration/test_runtime.py tests/integration/test_dspy_adapters.py \
	tests/integration/test_worker_streams.py::test_a_reply_that_breaks_off_is_an_error_after_its_chunks

$(VENV33)/.deps: pyproject.toml
	@echo 'installing DSPy 3.3 into $(VENV33)'
	rm -rf $(VENV33)
	$(PYTHON) -m venv $(VENV33)
	$(BIN33)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN33)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
		> $(VENV33)/requirements.txt
	$(BIN33)/python -m pip install -q -r $(VENV33)/requirements.txt 'dspy==3.3.1' --group test
	@touch $@

.PHONY: venv33
venv33: $(VENV33)/.deps ## install DSPy 3.3 into an environment of its own

.PHONY: parity-33
parity-33: build $(VENV33)/.deps ## the differential and worker tests with DSPy 3.3 (HYPOTHESIS_PROFILE=parity for more)
	PYTHONPATH=python HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-brief} \
		$(BIN33)/python -m pytest -q -n $(JOBS) --timeout 7200 $(or $(ARGS),$(TESTS33))

.PHONY: bench-rust
bench-rust: ## time the core alone, without the boundary to Python
	cargo bench -p dspex-core --locked

.PHONY: bench
bench: build ## time dspex beside its peers, and print the ratios (ARGS="benches/bench_template.py")
	@for file in $(or $(ARGS),$(filter-out benches/bench_pool.py,$(wildcard benches/bench_*.py))); do \
		if grep -q __main__ $$file; then $(BIN)/python $$file; \
		else $(BIN)/python -m pytest -q -p no:xdist $$file; fi; done
