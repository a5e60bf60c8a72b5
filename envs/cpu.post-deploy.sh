#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder of the study: with the pins of `make`
# in a checkout, elsewhere from the package index, or from $JSTAR_SOURCE (a folder, a git+https
# address). pip takes the torch build that fits the machine (CPU or CUDA).
set -euo pipefail
if [ -f envs/constraints.txt ] && grep -qs '^name = "jstar"' pyproject.toml; then
    pip install --quiet -c envs/constraints.txt -e '.[train,workflow,slurm]'
else
    pip install --quiet "jstar[train,workflow,slurm] ${JSTAR_SOURCE:+@ $JSTAR_SOURCE}"
fi
