"""Room of the optimal stage: the optimal loss J*, its error, and the oracle set.

Start with textbook.py, J* by its definition. From `optimal_loss` to the line that computes J* of a
draw: optimal_loss.py `curve_of_draws` > exact/pair_form.py `estimates` > `pair_of_draws`.

Shape letters:
    A  antithetic signs of a draw's noise: +eps, -eps
    B  kinds of draws: with their label, without it (label drop)
    C  channels
    D  dimensions of an image
    E  estimators from subsets: DOL, cDOL of each constant, SNIS
    F  fields of a softmax sum: w, w q, w e, w h
    G  groups that a posterior runs over: the classes, or one
    H  height
    K  int8 terms of a number
    L  points of a random subset
    M  noisy draws, or inputs x
    N  data points: all, or some of them (a tile, a class, a sample)
    P  main directions of the data
    Q  rows of a stacked operand: sources, then terms of their noise
    R  random subsets
    S  noise scales
    V  control variates
    W  width
"""

from jstar.curve import OptimalLoss
from jstar.optimal.optimal_loss import optimal_loss
from jstar.optimal.posterior import posterior_mean

__all__ = ["OptimalLoss", "optimal_loss", "posterior_mean"]
