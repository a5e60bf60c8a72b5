"""The group `jstar variants`: runs of one size compared, by their losses or their noise laws."""

import typer

from jstar.commands.options import Config, Results, group, layout_of
from jstar.constants import RESULTS

variants = group("variants", "Compare runs of one size that differ in how they are trained.")


@variants.command()
def losses(config: Config, results: Results = RESULTS) -> None:
    """Say where each variant of a study of kind 'variants' is weak: tables and a paragraph."""
    from jstar.variants.losses import write_variants

    typer.echo(write_variants(layout_of(config, results)))


@variants.command()
def noise_laws(config: Config, results: Results = RESULTS) -> None:
    """Compare runs trained with variant.noise with their like without: tables and figures.

    Law and weight over training, change of the gap and of sample quality, paired by seed.
    """
    from jstar.figures.noise_laws import draw_noise
    from jstar.variants.noise_laws import write_noise

    layout = layout_of(config, results)
    write_noise(layout)
    draw_noise(layout.noise_laws)
    typer.echo((layout.noise_laws / "effect.md").read_text(encoding="utf-8"))
