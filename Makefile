# The few commands that people repeat. Everything runs in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart

.PHONY: quickstart test lint types clean help

help:
	@echo "make quickstart   install, then train on drawn scenes and show what was learnt (minutes)"
	@echo "make test         install, then run all tests with coverage"
	@echo "make lint types   check style, imports and types"
	@echo "make clean        remove the environment and the quickstart's run"

# The environment is made anew only when pyproject.toml changes.
$(VENV)/installed: pyproject.toml
	PYTHON="$(PYTHON)" sh scripts/install.sh $(VENV)
	@touch $@

quickstart: $(VENV)/installed
	$(BIN)/virtex quickstart $(RUN)

# A process a core, each with one thread: small models gain nothing from more.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile \
		--cov --cov-report=term $(PYTEST_ARGUMENTS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(RUN)
