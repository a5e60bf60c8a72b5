"""Room of the diagnose stage: at which noise scales is a denoiser weak, and how?

Shape letters:
    M  noisy draws    S  noise scales    N  images of the dataset    T  steps of a schedule
    B  images of a batch    K  batches    C  channels    H, W  rows and columns
    D  values of an image
"""

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
