"""The group `jstar sampling`: draw, features, quality, theory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jstar.commands.options import (
    Config,
    Device,
    ModelName,
    Results,
    SeedNumber,
    Threads,
    group,
    layout_of,
    set_threads,
)
from jstar.constants import RESULTS
from jstar.errors import JstarError

if TYPE_CHECKING:
    import pandas as pd

    from jstar.layout import Layout


sampling = group("sampling", "Draw images, measure their quality, say which steps to take.")


def _foreign(text: str) -> Any:
    """An option of theory that is for other tables than a study's."""
    return typer.Option(help=text, rich_help_panel="Anybody's tables")


@sampling.command()
def draw(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Draw images of one run's snapshots and measure their quality: quality.csv, samples.npz.

    The part `sampling` of the study says how; any study has it, with EDM's sampler by default.
    """
    set_threads(threads)
    from jstar.cluster.gpus import claim_gpus
    from jstar.sampling.stage import write_quality

    layout = layout_of(config, results)
    layout.study.require_run(model, seed)
    run, out = layout.run(model, seed), layout.quality(model, seed)
    with claim_gpus(0 if device else min(1, layout.study.resources.train_gpus)):
        frame = write_quality(layout.study, run, layout.data, layout.features, out, device)
    last = frame.iloc[-1 - len(layout.study.sampling.sweep)]
    typer.echo(
        f"{out}: FID {last['fid']:.4g} ({last['fid_low']:.4g} to {last['fid_high']:.4g}) of "
        f"{last['sampled']} images, features {last['features']}"
    )


@sampling.command()
def features(
    config: Config, results: Results = RESULTS, device: Device = None, threads: Threads = None
) -> None:
    """Make the reference that samples are compared with: the data's features. Once a dataset."""
    set_threads(threads)
    from jstar.data import open_dataset
    from jstar.sampling.quality.reference import reference
    from jstar.torch_device import default_device

    layout = layout_of(config, results)
    where = str(default_device(device))
    dataset = open_dataset(layout.data)
    known = reference(dataset, layout.study.sampling.features, layout.features, where)
    accuracy = known.network.accuracy
    seen = "" if accuracy is None else f", accuracy {accuracy:.1%} on images it never saw"
    typer.echo(f"{layout.features}: {known.network.name}{seen}, {known.moments.count} images")


def _folders(text: str) -> Any:
    """An option of quality that is for two sets of images."""
    return typer.Option(help=text, rich_help_panel="Two sets of images")


@sampling.command()
def quality(
    generated: Annotated[
        Path | None,
        typer.Argument(
            help="Generated images: a folder, .zip, .npz, .npy, parquet", show_default=False
        ),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Argument(help="Images to compare them with, likewise", show_default=False),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    results: Results = RESULTS,
    features: Annotated[
        str,
        _folders("classifier (learns the labels of REAL), pixels, or a TorchScript file"),
    ] = "classifier",
    out: Annotated[Path, _folders("Folder of comparison.csv and what it is made from")] = Path(
        "quality"
    ),
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Gather the sample quality of all runs of a study, or compare two sets of images.

    With --config: tables, grids, correlation of gap and FID. With GENERATED and
    REAL: FID, KID, precision and recall of the one against the other.
    """
    set_threads(threads)
    if (config is None) == (generated is None) or (generated is None) != (real is None):
        raise JstarError("sampling quality: give either --config, or two sets of images")
    if config is not None:
        from jstar.figures.sampling import draw_quality

        layout = layout_of(config, results)
        draw_quality(layout)
        typer.echo(f"{layout.sampling}: quality.csv, correlation.csv, samples and gap_quality")
    elif generated is not None and real is not None:
        from jstar.data import open_dataset
        from jstar.diagnose.images import prepared_folder
        from jstar.sampling.quality.scores import score_words, write_scores
        from jstar.torch_device import default_device

        one, other = (
            open_dataset(prepared_folder(path, out / name))
            for path, name in ((generated, "generated"), (real, "real"))
        )
        frame = write_scores(one, other, features, out, str(default_device(device)))
        row = frame.iloc[0]
        typer.echo(
            f"{score_words(row)}; {row['images']:,} images against {row['real_images']:,}, "
            f"features {row['features']}"
        )


@sampling.command()
def theory(
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    results: Results = RESULTS,
    losses: Annotated[
        list[Path] | None, _foreign("Table of losses with gaps (.csv); may be given several times")
    ] = None,
    optimal: Annotated[Path | None, _foreign("Table of J* (.csv): sigma, loss, ...")] = None,
    out: Annotated[Path | None, _foreign("Folder of the tables and the figure")] = None,
    dim: Annotated[int | None, _foreign("Dimensions of an image; default: as beside J*")] = None,
    second_moment: Annotated[
        float | None, _foreign("Mean square of the data, a dimension; default: centred data")
    ] = None,
) -> None:
    """Bound the sampling error from measured gaps and J*, and recommend the steps.

    E_I, E_S and E_D of the stochastic samplers 'sde' and 'ancestral' (arXiv
    2406.12839), in nats an image, for polynomial and exponential steps. Reads
    tables only: of a study (--config), or anybody's with the columns run, params,
    flops, sigma and gap.
    """
    from jstar.figures.sampling import draw_theory
    from jstar.sampling.theory.stage import write_theory

    if config is not None:
        if losses or optimal or out or dim or second_moment:
            raise JstarError(
                "sampling theory: --losses and the rest are for tables without a --config"
            )
        layout = layout_of(config, results)
        folder = layout.sampling
        _, chosen = _study_theory(layout)
    elif losses and optimal and out:
        folder = out
        _, chosen = write_theory(losses, optimal, out, dim=dim, second_moment=second_moment)
    else:
        raise JstarError("sampling theory: give either --config, or --losses, --optimal and --out")
    draw_theory(folder)
    last = chosen.sort_values(["params", "flops"]).iloc[-1]
    of_last = chosen[(chosen["run"] == last["run"]) & (chosen["flops"] == last["flops"])]
    for _, row in of_last.iterrows():
        rho = f" rho {row['rho']:g}" if row["spacing"] == "polynomial" else ""
        typer.echo(
            f"{row['run']}, {row['sampler']}, {row['steps']} steps: best {row['spacing']}{rho}, "
            f"{row['total']:.4g} nats (EDM's {row['edm']:.4g}, exponential "
            f"{row['exponential']:.4g})"
        )


def _study_theory(layout: "Layout") -> "tuple[pd.DataFrame, pd.DataFrame]":
    from jstar.manifest import require_of_run
    from jstar.records import read_json
    from jstar.sampling.theory.stage import write_theory

    study, runs = layout.study, layout.study.runs()
    losses = [layout.losses(*run) for run in runs]
    quality = [path for run in runs if (path := layout.quality(*run)).is_file()]
    require_of_run([*losses, *quality])
    # The second moment is measured with the features; without samples the data count as centred.
    facts = read_json(quality[0].with_suffix(".json")) if quality else {}
    return write_theory(
        losses,
        layout.curve,
        layout.sampling,
        quality=quality,
        sigma_min=study.sampling.sigma_min,
        sigma_max=study.sampling.sigma_max,
        ema=study.sampling.ema or study.average,
        second_moment=facts.get("second_moment"),
    )
