"""Room of the figures stage: one function a figure, each reads result tables only.

Shape letters:
    N  images    C  channels    H, W  rows and columns    S  noise scales
"""

# name -> module of draw_<name>; imported when it is drawn, so that the workflow can list the
# names without matplotlib.
FIGURES = {
    "optimal_loss": "jstar.figures.optimal_loss",
    "floors": "jstar.figures.floors",
    "scaling": "jstar.figures.scaling",
    "scaling_by_sigma": "jstar.figures.scaling_by_sigma",
    "exponents": "jstar.figures.exponents",
    "gap": "jstar.figures.gap",
    "sensitivity": "jstar.figures.sensitivity",
    "isoflop": "jstar.figures.isoflop",
    "held_out": "jstar.figures.held_out",
    "averages": "jstar.figures.averages",
}

VARIANT_FIGURES = {
    "variants": "jstar.figures.variants",
    "gap_over_time": "jstar.figures.gap_over_time",
    "memorisation": "jstar.figures.memorisation",
}


def figures_of(kind: str, lengths: int) -> dict[str, str]:
    """The figures of a kind of study that measured so many EMA lengths: name -> module."""
    figures = {"scaling": FIGURES, "variants": VARIANT_FIGURES}[kind]
    return {name: module for name, module in figures.items() if name != "averages" or lengths > 1}
