# Nothing but Python 3.11 or later and make is needed: every target makes .venv first.
PYTHON ?= python3
BIN := .venv/bin
# thingsvision needs older libraries than earmark, and some 7 GB: `make bench THINGSVISION=`
# leaves it out.
THINGSVISION ?= .venv-thingsvision/bin/python

.PHONY: demo test test-all test-oldest lint bench clean

demo: .venv/installed
	$(BIN)/earmark demo

# Each of the two processes has one thread: more would wait for each other.
# A file's tests stay in one process, which then makes its fixtures once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile \
	--no-loadscope-reorder --durations 25

test: .venv/developed lint
	$(PYTEST) -m "not slow"

# All tests, and more examples of Hypothesis.
test-all: .venv/developed lint
	$(PYTEST) --hypothesis-profile thorough

# Loading of models, with the oldest versions that pyproject.toml allows.
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/pytest tests/models -m "not slow" \
		--override-ini addopts=--strict-markers

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# NAMES, of benches, measures only these; OUT is the folder of the table.
bench: .venv/benched
	$(if $(THINGSVISION),$(if $(findstring encoding,$(or $(NAMES),encoding)),\
		-@$(MAKE) --no-print-directory .venv-thingsvision/installed))
	THINGSVISION=$(THINGSVISION) OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks $(NAMES) \
		$(if $(OUT),--out $(OUT))

clean:
	rm -rf .venv .venv-oldest .venv-thingsvision earmark-demo earmark-bench

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed $@

.venv/benched: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch .venv/installed $@

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
		--editable '.[hf]' beartype hypothesis jsonschema pandas pytest pytest-xdist
	touch $@

.venv-thingsvision/installed:
	@echo "Installing thingsvision 2.7.3, some 7 GB; 'make bench THINGSVISION=' goes without."
	$(PYTHON) -m venv .venv-thingsvision
	.venv-thingsvision/bin/python -m pip install --quiet thingsvision==2.7.3
	touch $@
