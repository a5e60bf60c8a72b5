"""Subcommands around a whole study: init writes its folder, study runs it to its report."""

from pathlib import Path
from typing import Annotated

import typer

from jstar.application import DEFAULT_STUDY
from jstar.commands.options import app
from jstar.errors import JstarError


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write, or to add a study to")],
    study: Annotated[
        str, typer.Option("--study", help="A study that comes with jstar, to begin from")
    ] = DEFAULT_STUDY,
) -> None:
    """Write a study folder: the file of a study, and a README that says how to run and read it."""
    from jstar.application import write_study_folder

    written = write_study_folder(folder, study)
    typer.echo("\n".join(map(str, written)))
    typer.echo(f"next: cd {folder} && jstar plan --config {study}.yaml && jstar study {study}.yaml")


@app.command("study")
def study_command(
    config: Annotated[Path, typer.Argument(help="Study file, for example digits.yaml")],
    cores: Annotated[str, typer.Option("--cores", help="CPU cores to use, or 'all'")] = "all",
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", help="Profile of jstar (slurm) or of yours (a folder), for a cluster"
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            help="After --: options for Snakemake, whose own output is then shown (-- --dry-run)"
        ),
    ] = None,
) -> None:
    """Run a whole study in the present folder: one line says how far, then come the verdicts.

    Everything lies below ./results, the page at results/studies/STUDY/report.html.
    An interrupted study goes on where it was: the same command again.
    """
    from jstar.config import Study
    from jstar.data.check import check_study
    from jstar.extras import require
    from jstar.run_study import result_lines, run_study

    if not (cores == "all" or (cores.isdigit() and int(cores) > 0)):
        raise JstarError(f"--cores = {cores} is not allowed, give 'all' or a number above 0")
    require("snakemake", "papermill", "torch")
    loaded = Study.load(config)
    check_study(loaded, str(config))
    status = run_study(loaded, config, cores, profile, tuple(more or ()))
    if status == 0 and not more:
        typer.echo("\n".join(result_lines(loaded)))
    raise typer.Exit(status)
