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
    "cooldown": "jstar.figures.cooldown",
}

VARIANT_FIGURES = {
    "variants": "jstar.figures.variants",
    "gap_over_time": "jstar.figures.gap_over_time",
    "memorisation": "jstar.figures.memorisation",
}


def figures_of(kind: str, lengths: int, cooldown: bool) -> dict[str, str]:
    """The figures of a kind of study: name -> module.

    lengths: how many EMA lengths it measured. cooldown: whether it has cooldowns.
    """
    figures = {"scaling": FIGURES, "variants": VARIANT_FIGURES}[kind]
    drawn = {"averages": lengths > 1, "cooldown": cooldown}
    return {name: module for name, module in figures.items() if drawn.get(name, True)}
