"""Room of the models: the DiT, the ladder of sizes (one dial), and what a pass costs.

Shape letters:
    B  images    T  tokens of an image    E  width    F  sinusoids of a noise scale
"""

from jstar.config import SIZES
from jstar.model.dit import DiT
from jstar.model.flops import flops, parameters
from jstar.model.ladder import DiTConfig, ladder, model_config

__all__ = ["SIZES", "DiT", "DiTConfig", "flops", "ladder", "model_config", "parameters"]
