# make run     install what is missing, build, start the server with a demo stream
# make test    everything that must hold before a change lands; `make test-unit` and the like run one part
# make recovery   every kind of process killed for a minute each while sixty viewers watch (55 minutes)
# make soak    random kills and 10,000 connections for an hour; SOAK_MINUTES=15 for less
# make bench   the figures of docs/performance.md
# make lint    formatting, lint and types
# make deb     the Debian package, in a root of Debian 13 (as root)
# make test-package   that package installed, upgraded and removed on a booted Debian 13 (as root)
# make clean   remove what was built

PYTHON ?= python3
VENV ?= .venv
# pytest workers; tests use own instances and ports, so they do not meet.
JOBS ?= 2

ifeq ($(VENV),.venv)
BUILD := build/dev
else
BUILD := build/$(notdir $(VENV))
endif
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
BUILT := $(VENV)/.built
TEST_READY := $(VENV)/.test-ready
ASAN := build/asan
PYTEST := $(BIN)/python -m pytest -q
# Real programs on a machine that others use too: a case that fails beside the others runs once more by itself. What the
# load did to it does not come twice, what is wrong does; the first failure stays in the output.
SETTLE := { test $$? = 1 && echo "== what failed, alone" && $(PYTEST) --last-failed --last-failed-no-failures none --maxfail 1
export PATH := $(BIN):$(PATH)

CYTHON_SOURCES := $(wildcard mist/core/*.pyx mist/core/*.pxd mist/core/*.h)
SOURCES := $(CYTHON_SOURCES) $(wildcard mist/core/*.pyi) meson.build meson_options.txt mist/meson.build mist/core/meson.build

.PHONY: run test lint test-lint test-types test-layers test-unit test-conformance test-integration test-fuzz test-sanitizer \
	test-recovery recovery test-soak soak bench bench-smoke clean build ready deb test-package

run: build
	@packaging/run-demo $(BIN)/mist $(MIST_ARGS)

# The build is editable: changed Python counts at once, changed Cython is compiled at the next import.
build: $(BUILT)

$(BUILT): pyproject.toml packaging/apt-packages-build.txt meson.build meson_options.txt mist/meson.build mist/core/meson.build $(wildcard mist/core/*.pyx)
	@packaging/install-packages packaging/apt-packages-build.txt
	@$(PYTHON) -c 'import sys; sys.exit("mist needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Building mist"
	@packaging/install-requirements $(BIN)/python build dependencies demo
	@$(PIP) install --no-build-isolation --no-deps -e . --config-settings=build-dir=$(BUILD)
	@touch $@

ready: $(TEST_READY)

$(TEST_READY): $(BUILT) packaging/apt-packages-test.txt
	@packaging/install-packages packaging/apt-packages-build.txt packaging/apt-packages-test.txt
	@echo "Installing test tools"
	@packaging/install-requirements $(BIN)/python test lint
	@touch $@

# One after the other and the quick ones first, so that a mistake shows early.
test: ready
	@$(MAKE) --no-print-directory test-lint
	@$(MAKE) --no-print-directory test-types
	@$(MAKE) --no-print-directory test-layers
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-fuzz
	@$(MAKE) --no-print-directory test-sanitizer
	@$(MAKE) --no-print-directory test-conformance
	@$(MAKE) --no-print-directory test-integration
	@$(MAKE) --no-print-directory test-recovery
	@$(MAKE) --no-print-directory test-soak
	@echo "All tests passed"

lint: ready
	@$(MAKE) --no-print-directory test-lint
	@$(MAKE) --no-print-directory test-types

test-lint: ready
	@echo "== lint"
	@ruff check .
	@ruff format --check -q .
	@cython-lint $(wildcard mist/core/*.pyx)

test-types: ready
	@echo "== types"
	@mypy

test-layers: ready
	@echo "== layers"
	@$(PYTEST) tests/unit/test_layers.py

# Importing once first: two pytest workers must not both find something to compile.
test-unit: ready
	@echo "== unit"
	@python -c 'import mist.core'
	@$(PYTEST) -n $(JOBS) tests/unit --ignore=tests/unit/test_layers.py

test-fuzz: ready
	@echo "== corpus replay"
	@$(PYTEST) -n $(JOBS) tests/fuzz

test-conformance: ready
	@echo "== conformance"
	@$(PYTEST) -n $(JOBS) tests/conformance || $(SETTLE) tests/conformance; }

test-integration: ready
	@echo "== integration"
	@$(PYTEST) -n $(JOBS) --dist loadgroup tests/integration || $(SETTLE) tests/integration; }

# MIST_RECOVERY_SECONDS: how long each kind of process is killed, once a second.
test-recovery: ready
	@echo "== recovery"
	@$(PYTEST) tests/recovery || $(SETTLE) tests/recovery; }

recovery: ready
	@MIST_RECOVERY_SECONDS=60 MIST_RECOVERY_REPORT=build/recovery.json $(PYTEST) tests/recovery
	@cat build/recovery.json

test-soak: ready
	@echo "== soak"
	@export SOAK_MINUTES=5; $(PYTEST) tests/soak || $(SETTLE) tests/soak; }

SOAK_MINUTES ?= 60
soak: ready
	@SOAK_MINUTES=$(SOAK_MINUTES) $(PYTEST) tests/soak

# The engines again, compiled with bounds checks and with the address and undefined-behaviour sanitizers.
test-sanitizer: $(ASAN)/.built
	@echo "== sanitizers"
	@packaging/with-sanitizers $(ASAN)/venv/bin/python -m pytest -q -p no:cacheprovider -n $(JOBS) tests/unit/core tests/fuzz

$(ASAN)/.built: $(SOURCES) | ready
	@echo "== sanitizer build"
	@packaging/build-sanitized $(BIN)/python $(ASAN)
	@touch $@

deb:
	@packaging/install-packages packaging/apt-packages-deb.txt
	@packaging/make-deb build/packages

test-package: ready
	@packaging/install-packages packaging/apt-packages-deb.txt
	@tests/package/run

bench: ready
	@python -m bench.run

bench-smoke: ready
	@python -m bench.run --smoke

clean:
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
