# Everything a checkout needs is made in .venv; give PYTHON=python3.12 for another interpreter.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# So many test files run at once, one more than the cores that this is written for: tests of live sessions
# wait. The tests of one file share what is slow to make, and stay together.
WORKERS ?= 3

.PHONY: demo demo-real serve-demo test quick test-all lint bench figures reproduce clean

# Tests start many programs, each of which would compile the project's modules again.
demo demo-real test quick test-all lint bench: export PYTHONDONTWRITEBYTECODE :=

# Sessions have a core beside them for the simulator; training takes them all.
demo demo-real test test-all bench: export OMP_NUM_THREADS ?= 1

demo: .venv/core
	$(BIN)/rtdecode demo --dashboard 127.0.0.1:0

demo-real: .venv/core
	$(BIN)/rtdecode demo --recorded --dashboard 127.0.0.1:0

# Two replicas of Ray Serve and two sessions; a replica is killed in the middle.
serve-demo: .venv/ray
	$(BIN)/python -m deploy.ray.demo

# Types are checked by one process, which leaves the other cores to the tests.
test: .venv/test
	$(MAKE) --no-print-directory --jobs 2 lint quick

quick: .venv/test
	$(BIN)/python -m pytest -m "not full" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# What measures time, or has to keep up with it, wants the machine alone. Sessions that wait for their clock for most of
# the time have a core each.
test-all: test .venv/ray
	$(BIN)/python -m pytest -m "full and not timed and not paced" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m paced --numprocesses 2 --dist worksteal
	$(BIN)/python -m pytest -m timed

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m tests.words
	$(BIN)/python -m benchmarks.tables --check

bench: .venv/test
	$(BIN)/python -m benchmarks.run

# Two programs at once, each on one core.
figures: .venv/test
	$(BIN)/python -m benchmarks.any_film

reproduce: .venv/test
	$(BIN)/python -m train.reproduce

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "rtdecode needs Python 3.11 to 3.13, found " + sys.version)'
	$(PYTHON) -m venv .venv

# Every package by the hashes of lock.txt (python -m tests.lock), which has the files for Linux. A checkout has no
# hash: it is built by what is there.
.venv/core: pyproject.toml constraints.txt lock.txt | .venv/bin/python
ifeq ($(shell uname -s),Linux)
	$(PIP) --require-hashes -r lock.txt
	$(PIP) --no-deps --no-build-isolation -e .
else
	$(PIP) -c constraints.txt -e '.[cpu,dashboard]'
endif
	touch $@

# torch by its pin, so that nothing pulls a CUDA build. To compile 18,000 modules took nearly half of the time, and
# the tests import a part of them, each of which is compiled then.
.venv/test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --no-compile -c constraints.txt torch -e '.[cpu,dashboard,outputs,train,export,play,test]'
	touch .venv/core $@

.venv/ray: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -c constraints.txt -e '.[cpu,serve,ray]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
