"""Room of `jstar rehearse`: a few steps of every size on this machine, against the plan.

node starts, kills and times processes; worker is what they do; golden is the float32 reference;
compare holds the tolerances and the sentences.

Shape letters:
    N  images of the dataset    B  images of a step    M  noisy draws
"""

from jstar.rehearse.node import Node, rehearse

__all__ = ["Node", "rehearse"]
