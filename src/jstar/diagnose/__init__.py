"""Room of the diagnose stage: at which noise scales is a denoiser weak, and how?

The room is a function too: `jstar.diagnose(denoiser, images)`, see `calls.diagnose_images`.

Shape letters:
    M  noisy draws    S  noise scales    N  images of the dataset    T  steps of a schedule
    B  images of a batch    K  batches    C  channels    H, W  rows and columns
    D  values of an image    Q  draws that readings are held against each other on
    F  features of an image
"""

import sys
from types import ModuleType
from typing import Any

from jstar.diagnose.adapters import Adapter, discrete, dit, preconditioned, sit
from jstar.diagnose.calls import diagnose_images
from jstar.diagnose.diffusers import from_diffusers
from jstar.diagnose.measure import Diagnosis, diagnose
from jstar.diagnose.side_by_side import SideBySide
from jstar.diagnose.stage import Finding


class _Room(ModuleType):
    """This module, which can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Finding | SideBySide:
        found: Finding | SideBySide = diagnose_images(*arguments, **options)
        return found


sys.modules[__name__].__class__ = _Room

__all__ = [
    "Adapter",
    "Diagnosis",
    "Finding",
    "SideBySide",
    "diagnose",
    "diagnose_images",
    "discrete",
    "dit",
    "from_diffusers",
    "preconditioned",
    "sit",
]
