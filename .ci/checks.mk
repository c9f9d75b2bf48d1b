# The checks of .ci/run, for make to run several at once: those that take longest come first.

# The makes below, and the tools that they run, are not to share this one's jobs.
unexport MAKEFLAGS MFLAGS

TIMED = bash -c 'time "$$@"' timed

.PHONY: all environment tests valgrind models cross lint docs installs $(PYTHONS)

all: tests $(PYTHONS) models installs lint cross docs valgrind

environment:
	make .venv/installed

# The README's test command.
tests: environment
	$(TIMED) make test

# In an environment of its own, without the tools of lint, docs and benchmarks.
$(PYTHONS):
	$(TIMED) make test-python PYTHON=$@ VENV=.venv-$(subst python,,$(notdir $@)) GROUPS="build test"

valgrind: tests # which uses the same build
	$(TIMED) make test-valgrind

models:
	$(TIMED) make models

cross lint docs: environment
	$(TIMED) make $@

installs:
	$(TIMED) .ci/installs
