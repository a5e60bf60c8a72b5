"""Room of the diagnose stage: at which noise scales is a denoiser weak, and how?"""

from jstar.diagnose.adapters import Adapter, discrete, dit, preconditioned, sit
from jstar.diagnose.diffusers import from_diffusers
from jstar.diagnose.measure import Diagnosis, diagnose

__all__ = [
    "Adapter",
    "Diagnosis",
    "diagnose",
    "discrete",
    "dit",
    "from_diffusers",
    "preconditioned",
    "sit",
]
