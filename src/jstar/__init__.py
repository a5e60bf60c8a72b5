"""jstar: honest scaling laws for diffusion models.

One word names a stage everywhere (command, rule file, package room, results folder):
prepare -> optimal -> train -> evaluate -> fit -> figures -> report.

Shape suffixes used in the whole package:
    B  images of a batch          N  data points of the distribution
    M  noisy draws (queries)      S  noise scales
    D  dimensions of an image     K  classes
    C  channels                   H, W  rows, columns
    T  tokens                     E  width of the transformer
    P  points of a fit            R  training runs          Q  bootstrap draws
"""

__version__ = "0.1.0"
