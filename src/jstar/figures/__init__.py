"""Room of the figures stage: one function a figure, each reads result tables only."""

# name -> module; the functions are imported when one is drawn, so that the workflow can list the
# names without matplotlib.
FIGURES = {
    "optimal_loss": "jstar.figures.optimal_loss",
    "scaling": "jstar.figures.scaling",
    "scaling_by_sigma": "jstar.figures.scaling_by_sigma",
    "exponents": "jstar.figures.exponents",
    "gap": "jstar.figures.gap",
    "sensitivity": "jstar.figures.sensitivity",
    "isoflop": "jstar.figures.isoflop",
}
