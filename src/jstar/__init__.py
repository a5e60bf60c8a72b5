"""jstar: honest scaling laws for diffusion models.

One word names a stage everywhere (command, rule file, package room, results folder):
prepare -> optimal -> train -> evaluate -> fit -> figures -> report.

Names end in the axes of an array, x_BD; every room says what its letters mean. Files here:

Shape letters:
    M  noisy draws    S  noise scales
    K  stored averages: every length at every time    L  lengths asked for
"""

__version__ = "0.1.0"
