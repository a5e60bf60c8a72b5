# Thin wrappers; README shows the plain commands beside them.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
CORES ?= all

.PHONY: study test test-slurm lint site bench bench-train clean

$(VENV)/installed: pyproject.toml envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jstar needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV), once: some minutes and gigabytes, most of it torch.'
	$(BIN)/pip install -c envs/constraints.txt -e '.[dev]'
	touch $@

study: $(VENV)/installed  ## the default study, from nothing to report.html
	$(BIN)/jstar study config/digits.yaml --cores $(CORES)

test: $(VENV)/installed  ## unit tests of every stage and one tiny study
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slurm: $(VENV)/installed  ## studies on a real SLURM that is started on this machine
	$(BIN)/pip install --quiet -c envs/constraints.txt -e '.[dev,slurm]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m slurm -rs tests/slurm

bench: $(VENV)/installed  ## the whole default study, timed; see benchmarks/ for the others
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/study.py

bench-train: $(VENV)/installed  ## images/s, FLOP/s, MFU and memory of the six sizes, trick by trick
	$(BIN)/python benchmarks/train.py table

lint: $(VENV)/installed  ## ruff, mypy, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

site: $(VENV)/installed  ## the documents as pages, in site/: no network is needed to read them
	$(BIN)/pip install --quiet -c envs/constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:  ## remove the environment; results stay
	rm -rf $(VENV)
