# Everything that is done with this tree. Each target sets up what it needs in $(VENV).
#
#   make demo     work on the files of Python's standard library on the pool, beside its peers
#   make test     all tests: C (plain and under sanitizers) and Python
#   make models   the models of the protocols, checked exhaustively (needs spin)
#   make cross    the core for aarch64, with every warning an error; its threads and fibers under qemu-user
#   make test-arm64                in a machine that qemu emulates, with Debian's arm64 kernel
#   make test-debian SUITE=trixie  with glibc and the Pythons of another Debian
#   make lint     formatting, types, and a build in which every warning is an error
#   make format   format C and Python
#   make bench    dromon beside its peers, and the core alone beside its floors
#   make docs     the documentation, in docs/_build/html
#   make clean    remove all that was made
#
# Another interpreter: make test-python PYTHON=python3.13 VENV=.venv-3.13
# Its environment has all GROUPS of pyproject.toml; tests need no more than GROUPS="build test".

PYTHON = python3
VENV = .venv
GROUPS = build test lint docs bench
BIN = $(VENV)/bin
# The tools that pip and meson call are those of the virtual environment.
RUN = PATH="$(abspath $(BIN)):$$PATH"
# It would ask PyPI for a newer version of itself, and does not see an editable install.
PYRIGHT = $(RUN) PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PYTHONPATH=runtime pyright
C_SOURCES = $(wildcard native/*/*.[ch] native/*/*/*.[ch] benchmarks/native/*.[ch])

.PHONY: demo test test-c test-valgrind test-python test-arm64 test-debian cross models lint format bench docs clean

demo: $(VENV)/installed
	$(RUN) python -m dromon demo

test: test-c test-python

test-c: build/test/build.ninja build/tsan/build.ninja build/asan/build.ninja
	$(RUN) meson test -C build/test --print-errorlogs
	$(RUN) meson test -C build/tsan --print-errorlogs
	$(RUN) meson test -C build/asan --print-errorlogs

# Needs valgrind.
test-valgrind: build/test/build.ninja
	$(RUN) meson test -C build/test --print-errorlogs --setup valgrind

test-python: $(VENV)/installed
	$(RUN) python -m pytest

# These take minutes, and more to set up; see tests/systems/README.md.
test-arm64: $(VENV)/installed
	$(RUN) tests/systems/arm64

test-debian:
	tests/systems/debian $(SUITE)

models:
	native/models/check.sh

# Needs aarch64-linux-gnu-gcc and qemu-aarch64. The tests are those of what differs between processors
# and is not a test of the kernel itself, which qemu-user stands in for.
cross: build/aarch64/build.ninja
	$(RUN) meson test -C build/aarch64 --print-errorlogs stack switch fiber 'thread-*' bare_thread

lint: $(VENV)/installed build/lint/build.ninja
	$(RUN) clang-format --dry-run --Werror $(C_SOURCES)
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) mypy --strict benchmarks examples tests/typing
	$(PYRIGHT)
	$(PYRIGHT) --verifytypes dromon --ignoreexternal
	$(RUN) ninja -C build/lint

format: $(VENV)/installed
	$(RUN) clang-format -i $(C_SOURCES)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

bench: $(VENV)/installed build/bench/build.ninja
	$(RUN) ninja -C build/bench
	$(RUN) python -m benchmarks

docs: $(VENV)/installed
	$(RUN) sphinx-build -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf .venv .venv-* build docs/_build
	find . -name __pycache__ -prune -exec rm -rf {} +

# The install is editable and without build isolation: an import rebuilds what has changed.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) python -m pip install --quiet --upgrade "pip>=25.1"
	$(RUN) python -m pip install --quiet $(GROUPS:%=--group %)
	$(RUN) python -m pip install --quiet --no-build-isolation --editable .
	touch $@

build/test/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/test -Dtests=true

build/tsan/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/tsan -Dtests=true -Db_sanitize=thread -Db_lundef=false

build/asan/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/asan -Dtests=true -Db_sanitize=address,undefined -Db_lundef=false

build/bench/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/bench -Dbenchmarks=true -Dpython=false -Dbuildtype=release

build/aarch64/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/aarch64 --cross-file native/cross/aarch64.ini \
		-Dpython=false -Dtests=true --werror

build/lint/build.ninja: | $(VENV)/installed
	$(RUN) meson setup build/lint -Dtests=true -Dbenchmarks=true --werror
