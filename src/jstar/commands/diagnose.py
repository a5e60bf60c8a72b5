"""The subcommand diagnose: anybody's denoiser."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jstar.commands.options import Threads, app, check_device, set_threads
from jstar.errors import JstarError


def _network(text: str) -> Any:
    """An option that says which denoiser."""
    return typer.Option(help=text, rich_help_panel="Which denoiser (several: side by side)")


def _draws(text: str) -> Any:
    """An option of the oracle set, where it is not there yet."""
    return typer.Option(help=text, rich_help_panel="Noisy draws, where --optimal has none yet")


def _images(text: str) -> Any:
    """An option of drawn images."""
    return typer.Option(help=text, rich_help_panel="Images drawn with it")


@app.command("diagnose")
def diagnose_command(
    denoiser: Annotated[
        list[str] | None,
        _network(
            "module:factory; the factory returns a function (x [B, ...], sigma [B], labels) -> x0"
        ),
    ] = None,
    run: Annotated[list[Path] | None, _network("A finished run, results/runs/STUDY/RUN")] = None,
    diffusers: Annotated[
        list[Path] | None,
        _network("Local folder of a diffusers pipeline (needs the extra 'latents')"),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="What it was trained on: a prepared folder, .npz, .npy, a folder of images ..."
        ),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Images of the same kind that it was not trained on")
    ] = None,
    optimal: Annotated[
        Path | None,
        typer.Option(
            help="Folder of curve.csv and oracle/, for example results/optimal/DATASET; what is "
            "not there is computed; default: OUT/optimal"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of diagnosis.csv, .md, .png and .pdf")] = Path(
        "diagnosis"
    ),
    process: Annotated[
        str | None,
        typer.Option(
            help="Training process (edm, vp ...), its weights make the total loss; default: the "
            "denoiser's own, or edm"
        ),
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Give it class labels; J* is then class by class")
    ] = False,
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="One prompt's embedding (.npy, .npz, .safetensors), given in the place of labels"
        ),
    ] = None,
    snapshot: Annotated[
        list[int] | None, typer.Option(help="Of --run; default: the last; several: side by side")
    ] = None,
    ema: Annotated[float | None, typer.Option(help="EMA length of --run; default: first")] = None,
    sigma_min: Annotated[float | None, _draws("Smallest noise scale; default: 0.02")] = None,
    sigma_max: Annotated[float | None, _draws("Largest noise scale; default: 80")] = None,
    sigmas: Annotated[int | None, _draws("Number of noise scales; default: 24")] = None,
    queries: Annotated[int | None, _draws("Noisy draws a noise scale; default: 1024")] = None,
    seed: Annotated[int | None, _draws("Seed of the draws; default: 1")] = None,
    sample: Annotated[
        int | None, _images("Draw so many images with it; FID, KID, precision, recall")
    ] = None,
    features: Annotated[
        str,
        _images("classifier (learns the labels of --dataset), pixels, or a TorchScript file"),
    ] = "classifier",
    batch: Annotated[int, typer.Option(help="Images in one call of the denoiser")] = 256,
    device: Annotated[
        str, typer.Option(callback=check_device, help="cpu, cuda ...; where x and sigma are")
    ] = "cpu",
    threads: Threads = None,
) -> None:
    """Say at which noise scales a denoiser is weak, and how: its loss against J*.

    The loss of a diffusion model is mostly floor at large noise scales: only
    its distance from the posterior mean says how good it is. Adapters that are
    wrong (sigma ignored, data in another scale ...) are named.
    """
    set_threads(threads)
    if not (denoiser or run or diffusers):
        raise JstarError("diagnose: give one of --denoiser, --run and --diffusers, or several")
    if dataset is None:
        raise JstarError("diagnose: --dataset is missing, a prepared folder or a .npz")
    from jstar.diagnose.adapters import from_factory, from_run
    from jstar.diagnose.calls import compare_files, diagnose_files
    from jstar.diagnose.diffusers import from_pipeline
    from jstar.diagnose.generated import SampleOptions
    from jstar.diagnose.oracle_draws import DrawOptions
    from jstar.diagnose.prompts import open_prompt
    from jstar.noise import process as named_process

    wanted: list[int | None] = [*snapshot] if snapshot else [None]
    adapters = [
        *(from_factory(one) for one in denoiser or []),
        *(from_run(one, k, ema, device) for one in run or [] for k in wanted),
        *(from_pipeline(one, device) for one in diffusers or []),
    ]
    options: dict[str, Any] = {
        "optimal": optimal,
        "held_out": held_out,
        "conditional": labels,
        "process": named_process(process) if process else None,
        "draws": DrawOptions(sigma_min, sigma_max, sigmas, queries, seed),
        "sample": None if sample is None else SampleOptions(sample, features),
        "prompt": None if prompt is None else open_prompt(prompt),
        "batch": batch,
        "device": device,
    }
    if len(adapters) > 1:
        compared = compare_files(adapters, dataset, out, **options)
        typer.echo(compared.summary())
        for number, one in enumerate(compared.findings, start=1):
            one.plot(out / str(number) / "diagnosis")
        return
    found = diagnose_files(adapters[0], dataset, out, **options)
    typer.echo(found.summary())
    found.plot(out / "diagnosis")
