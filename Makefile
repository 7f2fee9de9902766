# The few commands that people repeat. Everything runs in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart

.PHONY: quickstart test test-slow coverage lint types docs clean help

help:
	@echo "make quickstart   install, then train on drawn scenes and show what was learnt (minutes)"
	@echo "make test         install, then run the tests, but for the slow ones"
	@echo "make test-slow    run the slow tests alone: larger cases of the same laws"
	@echo "make coverage     run all tests and print the lines and branches that none reaches"
	@echo "make lint types   check style, imports and types"
	@echo "make docs         build the book from docs/ into build/book"
	@echo "make clean        remove the environment and the quickstart's run"

# The environment is rebuilt only when pyproject.toml changes.
$(VENV)/installed: pyproject.toml
	PYTHON="$(PYTHON)" sh scripts/install.sh $(VENV)
	@touch $@

quickstart: $(VENV)/installed
	$(BIN)/virtex quickstart $(RUN)

# Each process has one thread, as small models gain nothing from more, and there is one process
# more than cores, as many tests wait. The files begin in the order of their names: those with the
# most tests, which xdist would prefer, are the shortest.
PROCESSES := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores + 1 : 8)))
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) \
	--dist loadfile --no-loadscope-reorder

test: $(VENV)/installed
	$(PYTEST) -m "not slow" $(PYTEST_ARGUMENTS)

test-slow: $(VENV)/installed
	$(PYTEST) -m slow $(PYTEST_ARGUMENTS)

coverage: $(VENV)/installed
	$(PYTEST) --cov --cov-report=term $(PYTEST_ARGUMENTS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/book

clean:
	rm -rf $(VENV) $(RUN)
