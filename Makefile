# Thin wrappers; README shows the plain commands beside them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CORES ?= all

.PHONY: study test lint bench clean

$(VENV)/installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jstar needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c envs/constraints.txt -e '.[dev]'
	touch $@

study: $(VENV)/installed  ## the default study, from nothing to report.html
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES)

test: $(VENV)/installed  ## unit tests of every stage and one tiny study
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

lint: $(VENV)/installed  ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

clean:  ## remove the environment; results stay
	rm -rf $(VENV)
