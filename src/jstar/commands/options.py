"""The application, and the options that several subcommands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jstar import __version__
from jstar.errors import JstarError

if TYPE_CHECKING:  # what a study is costs more to import than all the help
    from jstar.layout import Layout

app = typer.Typer(
    name="jstar",
    help="Honest scaling laws for diffusion models: J(F) - J* = beta F^alpha.\n\n"
    "The stages, in order: prepare, optimal, oracle, tune (if the study asks), train, evaluate, "
    "fit, figures. Each reads and writes files below --results; 'snakemake --cores all' runs "
    "them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"jstar {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    """What stands before the subcommand; the help of the application is its own."""


def _some_threads(threads: int | None) -> int | None:
    if threads is not None and threads < 1:
        raise JstarError(f"--threads = {threads} is not allowed, at least 1 is needed")
    return threads


def check_device(device: str | None) -> str | None:
    """Refuse a device that is not on this machine before anything is read or written."""
    if device not in (None, "cpu"):
        from jstar.torch_device import default_device

        default_device(device)
    return device


Config = Annotated[
    Path, typer.Option("--config", help="Study file, for example config/digits.yaml")
]
Results = Annotated[Path, typer.Option("--results", help="Folder that holds all results")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a size in the study's ladder")]
SeedNumber = Annotated[int, typer.Option("--seed", help="Seed of the training run")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", callback=_some_threads, help="CPU threads; default: all"),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=check_device,
        help="cpu, cuda, cuda:1 ...; default: a GPU if there is one",
    ),
]


def group(name: str, text: str) -> typer.Typer:
    """A group of subcommands, `jstar NAME ...`."""
    part = typer.Typer(help=text, no_args_is_help=True)
    app.add_typer(part, name=name)
    return part


def layout_of(config: Path, results: Path) -> "Layout":
    """Layout of the study in `config` below the folder `results`."""
    from jstar.config import Study
    from jstar.layout import Layout

    return Layout(Study.load(config), results)


def say_changed_source(layout: "Layout") -> None:
    """A line on stderr where the dataset's files are others than those that were prepared."""
    from jstar.data.check import source_changed

    if changed := source_changed(layout.data):
        typer.echo(changed, err=True)


def set_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads; None leaves its own choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
