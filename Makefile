# make demo   builds everything into .venv and shows what oomguard does, in about a minute
# make test   every test of the project, Rust and Python
# make test-ml the tests that train with the real frameworks, in an environment of their own (5 GB, some minutes)
# make bench  what guard, look, kill, start and check cost, against others in the same run (minutes); `bench-ml` what needs torch
# make fuzz   every parser of outside bytes, FUZZ_SECONDS (600) each; make fuzz-short: 60 s each; fuzz/run says more
# make simulate CASES=100000 SEED=...  random machines through the engine, every rule checked at every step
# make mutate WORLDS=20000 SEED=1  breaks the engine in one way after another: do random machines find each?
# make survival  guests that really run out of memory, in QEMU; SCENARIOS=spike,leak GUARDS=run,up JOBS=2 choose (some 15 s a cell)
# make suites  test suites that others wrote, plainly and by `oomguard test`; SUITES='numpy optuna==5.0.0' JOBS=2 choose (network, minutes each)
# make check  what CI checks beside the tests: formatting, lints, types, stubs, generated files

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ML := .venv-ml
SOURCES := $(shell find crates python/oomguard -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi')
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: demo test test-rust test-python test-ml survival suites fuzz fuzz-short fuzz-tools simulate mutate check fmt generate bench bench-ml clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The package with its command; rebuilt when a source has changed.
$(VENV)/.installed: $(BIN)/python pyproject.toml Cargo.toml $(SOURCES)
	$(BIN)/python -m pip install --quiet ".[test]"
	touch $@

$(VENV)/.demo: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet scikit-learn
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/demo/demo.py

test: test-rust test-python

# nextest where it is installed: one process a test, and a summary that can be read.
test-rust:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run; else $(CARGO) test; fi

test-python: $(VENV)/.installed
	$(BIN)/python -m pytest python/tests tests/survival tests/suites -q -n 2 --ignore=python/tests/ml

# torch and the frameworks, apart from the rest.
$(ML)/.installed: pyproject.toml Cargo.toml $(SOURCES)
	test -x $(ML)/bin/python || $(PYTHON) -m venv $(ML)
	$(ML)/bin/python -m pip install --quiet --upgrade pip
	$(ML)/bin/python -m pip install --quiet ".[test,ml]"
	touch $@

test-ml: $(ML)/.installed
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(ML)/bin/python -m pytest python/tests/ml -q

# One verdict a line as JSON, then a table; skips with a reason where QEMU or another Debian package is missing.
survival:
	$(CARGO) build --quiet --release -p oomguard --bin oomguard
	$(PYTHON) tests/survival --scenarios "$(SCENARIOS)" --guards "$(GUARDS)" --jobs $(or $(JOBS),1) \
		--oomguard "$(or $(CARGO_TARGET_DIR),target)/release/oomguard"

suites: $(VENV)/.installed
	$(BIN)/python tests/suites/compare.py $(SUITES:%=--package %) -n $(or $(JOBS),2)

# Ratios in one run; BENCHMARKS.md holds what they were.
bench: $(VENV)/.installed
	$(CARGO) build --quiet --release -p oomguard -p oomguard-sys --example look --example memory_back
	$(BIN)/python bench/guard_cost.py --oomguard $(BIN)/oomguard
	$(BIN)/python bench/look_cost.py --look $(RELEASE)/examples/look
	$(BIN)/python bench/memory_back.py --memory-back $(RELEASE)/examples/memory_back
	$(BIN)/python bench/spawn_cost.py --oomguard $(BIN)/oomguard
	$(BIN)/python python/bench/test_runner.py --files 20 --work 0.2 --runner $(BIN)/oomguard
	$(BIN)/python python/bench/check_cost.py
	$(BIN)/python python/bench/interrupts.py
	$(BIN)/python python/bench/zygote_cost.py

# Those that need torch or a framework.
bench-ml: $(ML)/.installed
	OMP_NUM_THREADS=1 $(ML)/bin/python python/bench/replay_cost.py
	OMP_NUM_THREADS=1 $(ML)/bin/python python/bench/leak_growth.py
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(ML)/bin/python python/bench/callback_cost.py

simulate:
	crates/core/tests/simulate

mutate:
	crates/core/tests/mutate

fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} fuzz/run

fuzz-short:
	FUZZ_SECONDS=60 fuzz/run

# What fuzzing needs, where it is not there already.
fuzz-tools:
	$(CARGO) +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --locked

check: $(VENV)/.installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	CARGO="$(CARGO)" .ci/deny
	$(BIN)/python -m ruff format --check python examples bench tests
	$(BIN)/python -m ruff check python examples bench tests
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy.stubtest oomguard._core
	$(MAKE) --no-print-directory generate
	git diff --exit-code -- docs python/oomguard/_core.pyi

# Man pages and completions come from the flags themselves, type stubs from the compiled module.
generate: $(VENV)/.installed
	$(CARGO) run --quiet -p oomguard --example generate -- docs
	$(CARGO) build --quiet -p oomguard-py --features inspect
	$(CARGO) run --quiet -p oomguard-py --features inspect --example stubs -- python/oomguard/_core.pyi
	$(BIN)/python -m ruff format --quiet python/oomguard/_core.pyi
	$(BIN)/python -m ruff check --quiet --fix python/oomguard/_core.pyi

fmt:
	$(CARGO) fmt --all
	$(BIN)/python -m ruff format python examples bench tests
	$(BIN)/python -m ruff check --fix python examples bench tests

clean:
	rm -rf target $(VENV) $(ML) .demo build dist
