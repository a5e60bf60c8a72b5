"""Room of the optimal stage: the optimal loss J*, its error, and the oracle set."""

from jstar.curve import OptimalLoss
from jstar.optimal.optimal_loss import optimal_loss
from jstar.optimal.posterior import posterior_mean

__all__ = ["OptimalLoss", "optimal_loss", "posterior_mean"]
