"""Scaling laws: frontier, raw / corrected / free fits, intervals, verdicts. Imports no torch."""

from jstar.scaling.arrays import compare_laws, fit_law
from jstar.scaling.frontier import frontier

__all__ = ["compare_laws", "fit_law", "frontier"]
