"""Scaling laws: frontier, raw / corrected / free fits, intervals, verdicts. Imports no torch.

Shape letters:
    P  points of a fit    R  clusters of them    Q  bootstrap draws    L  functionals of a line
    A  exponents tried    Z  values of J* tried    B  places of a break    G  compute drawn at
    S  noise scales    T  snapshots of a run    K  parameters of the joint law
    C  values of compute where sizes compare, or cross    M  sizes at one compute
    V  windows of neighbouring snapshots    W  snapshots of one    I  starts of a search
"""

from jstar.scaling.arrays import compare_laws, fit_law
from jstar.scaling.frontier import frontier

__all__ = ["compare_laws", "fit_law", "frontier"]
