"""Room of the evaluate stage: J_sigma(theta) and the directly measured loss gap.

Shape letters:
    M  noisy draws    B  draws of a batch    S  noise scales    L  weighted sums over them
    N  images of the dataset    C  channels    H, W  rows and columns
"""

from jstar.evaluate.losses import Measured, measure
from jstar.evaluate.stage import measure_share, write_losses

__all__ = ["Measured", "measure", "measure_share", "write_losses"]
