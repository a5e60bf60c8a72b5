"""The subcommand noise: the optimal-loss noise law against the processes' own."""

import typer

from jstar.commands.options import RESULTS, Config, Results, app, layout_of


@app.command()
def noise(config: Config, results: Results = RESULTS) -> None:
    """Compare runs trained with variant.noise with their like without: tables and figures.

    Law and weight over training, change of the gap and of sample quality, paired by seed.
    """
    from jstar.figures.noise_laws import draw_noise
    from jstar.variants.noise_laws import write_noise

    layout = layout_of(config, results)
    write_noise(layout)
    draw_noise(layout.noise)
    typer.echo((layout.noise / "effect.md").read_text(encoding="utf-8"))
