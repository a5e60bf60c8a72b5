"""jstar: honest scaling laws for diffusion models.

One word names a stage everywhere (command, rule file, package room, results folder):
prepare -> optimal -> train -> evaluate -> fit -> figures -> report.

Names end in the axes of an array, x_BD; every room says what its letters mean. Files here:

Shape letters:
    M  noisy draws    S  noise scales
    K  stored averages: every length at every time    L  lengths asked for
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`jstar.diagnose`, which can be called; imported where it is asked for: it takes seconds."""
    if name == "diagnose":
        import importlib

        return importlib.import_module("jstar.diagnose")
    raise AttributeError(f"module 'jstar' has no attribute '{name}'")
