#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the folder of the study. The pins are the ones
# that `make` uses; pip takes the torch build that fits the machine (CPU or CUDA).
set -euo pipefail
pip install --quiet -c envs/constraints.txt -e '.[slurm]'
