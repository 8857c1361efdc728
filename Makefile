# Nothing but Python 3.11 or later and make is needed: every target makes .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/installed
	$(BIN)/earmark demo

# Threads of OpenMP that wait would spin, and slow the other process's tests tenfold.
test: .venv/developed lint
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest --numprocesses 2 --dist worksteal

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv earmark-demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/developed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/installed $@
