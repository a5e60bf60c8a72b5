"""Room of the evaluate stage: J_sigma(theta) and the directly measured loss gap."""

from jstar.evaluate.losses import Measured, measure
from jstar.evaluate.stage import write_losses

__all__ = ["Measured", "measure", "write_losses"]
