"""The command `jstar`: one subcommand a stage, thin. Heavy imports wait until they are needed."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jstar.config import Study
from jstar.errors import JstarError
from jstar.layout import Layout

if TYPE_CHECKING:
    from jstar.scaling.study import StudyFits

app = typer.Typer(
    name="jstar",
    help="Honest scaling laws for diffusion models: J(F) - J* = beta F^alpha.\n\n"
    "The stages, in order: prepare, optimal, oracle, train, evaluate, fit, figures. Each reads "
    "and writes files below --results; 'snakemake --cores all' runs them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path, typer.Option("--config", help="Study file, for example config/digits.yaml")
]
Results = Annotated[Path, typer.Option("--results", help="Folder that holds all results")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a size in the study's ladder")]
SeedNumber = Annotated[int, typer.Option("--seed", help="Seed of the training run")]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads; default: all")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one"),
]
RESULTS = Path("results")
POWER = 0.8  # the customary chance to see a difference that is there


def _layout(config: Path, results: Path) -> Layout:
    return Layout(Study.load(config), results)


def _verdicts(fits: "StudyFits") -> str:
    """5 noise scales (corrected 3, undecided 2); total: corrected."""
    single = Counter(s.comparison.verdict for s in fits.scales if s.sigma != "total")
    counts = ", ".join(f"{word} {count}" for word, count in single.most_common())
    total = [f"; total: {s.comparison.verdict}" for s in fits.scales if s.sigma == "total"]
    return f"{single.total()} noise scales ({counts}){''.join(total)}"


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@app.command()
def check(
    text: Annotated[str | None, typer.Option(help="Study as JSON text, instead of a file")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the complete study here")] = None,
) -> None:
    """Check a study file, and its dataset as far as that is possible before prepare."""
    import json

    from jstar.data.check import check_study
    from jstar.records import write_text

    if (text is None) == (config is None):
        raise JstarError("check: give either --config FILE or --text JSON")
    if config is not None:
        study, origin = Study.load(config), str(config)
    else:
        study, origin = Study.parse(json.loads(text or ""), "--text"), "--text"
    check_study(study, origin)
    if out is not None:
        write_text(out, study.model_dump_json(indent=2) + "\n")
    else:
        typer.echo(f"{config or 'study'}: study '{study.study}' is fine, {len(study.runs())} runs")


@app.command()
def prepare(config: Config, results: Results = RESULTS) -> None:
    """Read the dataset and write images.npy, labels.npy and the distribution card."""
    from jstar.data import prepare as run

    layout = _layout(config, results)
    card = run(layout.study.dataset, layout.data)
    typer.echo(f"{layout.data}: {card.count} images of shape {card.shape}, card {card.id}")


@app.command()
def optimal(
    config: Config,
    results: Results = RESULTS,
    threads: Threads = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="k/n: only the sums of shard k of n")
    ] = None,
) -> None:
    """Estimate the optimal loss J*(sigma) of the dataset: curve.csv."""
    _set_threads(threads)
    from jstar.optimal.shards import parse_shard, write_shard
    from jstar.optimal.stage import write_curve

    layout = _layout(config, results)
    if shard is not None:
        number, shards = parse_shard(shard)
        write_shard(layout.study, layout.data, layout.shard(number, shards), number, shards)
        return
    curve = write_curve(layout.study, layout.data, layout.curve)
    _say_closure(layout.curve, *curve.closure)


@app.command()
def optimal_merge(
    config: Config,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Shards; default: those of the study")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Make curve.csv from all shards of a run, which 'jstar optimal --shard k/n' wrote."""
    from jstar.optimal.shards import write_merged

    layout = _layout(config, results)
    shards = layout.study.optimal.shards
    names = files or [layout.shard(k, shards) for k in range(1, shards + 1)]
    curve = write_merged(layout.study, layout.data, names, layout.curve)
    _say_closure(layout.curve, *curve.closure)


def _say_closure(path: Path, got: float, expected: float) -> None:
    typer.echo(f"{path}: I-MMSE closure {got:.4f} nats, ln N = {expected:.4f}")


@app.command()
def oracle(config: Config, results: Results = RESULTS, threads: Threads = None) -> None:
    """Write the oracle set: the evaluation draws and their posterior means D*."""
    _set_threads(threads)
    from jstar.optimal.stage import write_oracle

    layout = _layout(config, results)
    write_oracle(layout.study, layout.data, layout.oracle)


@app.command()
def train(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="In a SLURM job: requeue it when its time is up")
    ] = False,
) -> None:
    """Train one size with one seed; resumes by itself from the run's state folder.

    Runs on as many GPUs and nodes as the study's resources say; with --device in this process.
    Exit status 75 means: not finished, start me again.
    """
    from jstar.launch import launch, threads_per_process
    from jstar.train import TrainStatus
    from jstar.train import train as run

    layout = _layout(config, results)
    study, resources = layout.study, layout.study.resources
    study.entry(model)

    def work() -> TrainStatus:
        return run(
            study,
            model,
            seed,
            layout.data,
            layout.run(model, seed),
            layout.state(model, seed),
            device=device,
            threads=threads_per_process(threads),
        )

    gpus, nodes = (0, 1) if device else (resources.train_gpus, resources.train_nodes)
    raise typer.Exit(launch(work, gpus=gpus, nodes=nodes, threads=threads, requeue=requeue))


@app.command()
def status(config: Config, results: Results = RESULTS) -> None:
    """Show all runs of a study: state, images, loss above J* so far, speed, time left."""
    from jstar.train.status import status_table, study_status

    typer.echo(status_table(study_status(_layout(config, results))))


@app.command()
def evaluate(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Measure loss and direct gap of every snapshot of one run: losses.csv."""
    _set_threads(threads)
    from jstar.devices import claim_gpus
    from jstar.evaluate import write_losses

    layout = _layout(config, results)
    run, out = layout.run(model, seed), layout.losses(model, seed)
    with claim_gpus(0 if device else min(1, layout.study.resources.train_gpus)):
        write_losses(layout.study, run, layout.data, layout.oracle, out, device)


def _foreign(text: str) -> Any:
    """An option of fit that is for other tables than a study's."""
    return typer.Option(help=text, rich_help_panel="Fitting anybody's tables")


@app.command()
def fit(
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    results: Results = RESULTS,
    losses: Annotated[
        list[Path] | None, _foreign("Table of losses (.csv); may be given several times")
    ] = None,
    optimal: Annotated[Path | None, _foreign("Table of J* (.csv): sigma, loss, stderr")] = None,
    out: Annotated[Path | None, _foreign("Folder for fits.csv and the rest")] = None,
    process: Annotated[
        str | None,
        _foreign(
            "Training process (edm, edm2, vp, ve, v, fm, sd3): its weights make the total loss; "
            "default: no total"
        ),
    ] = None,
    confidence: Annotated[
        float | None, _foreign("Of all intervals, a share; default: 0.95")
    ] = None,
    bootstrap: Annotated[int | None, _foreign("Bootstrap draws; default: 1000")] = None,
    min_images: Annotated[
        int | None,
        _foreign("Leave out snapshots before this many images (column images); default: 0"),
    ] = None,
) -> None:
    """Fit the raw, corrected and free law: of a study (--config), or of anybody's tables.

    A table of losses needs the columns run (name of the training run), params
    (number of parameters), flops (training compute so far, FLOPs), sigma (noise
    scale) and loss (mean squared error of x0 per dimension); the columns
    loss_se, gap, gap_se and images improve the fit.
    """
    from jstar.config import FitConfig
    from jstar.noise import process as named_process
    from jstar.scaling.stage import write_fits

    numbers = {"confidence": confidence, "bootstrap": bootstrap, "min_images": min_images}
    given = {key: value for key, value in numbers.items() if value is not None}
    if config is not None:
        if losses or optimal or out or process or given:
            raise JstarError(
                "fit: a study (--config) says itself what is fitted; --losses, --optimal, --out, "
                "--process, --confidence, --bootstrap and --min-images are for other tables"
            )
        layout = _layout(config, results)
        study = layout.study
        tables = [layout.losses(model, seed) for model, seed in study.runs()]
        fits = write_fits(
            tables,
            layout.curve,
            layout.fits,
            config=study.fit,
            process=study.process,
            ema=study.fit.ema or study.train.ema[0],
        )
        typer.echo(f"{layout.fits}: {_verdicts(fits)}")
        return
    if not losses or out is None:
        raise JstarError("fit: give either --config, or --losses and --out (and --optimal)")
    chosen = named_process(process) if process is not None else None
    fits = write_fits(losses, optimal, out, config=FitConfig.checked(given, "fit"), process=chosen)
    typer.echo(f"{out}: {_verdicts(fits)}")


@app.command()
def power(
    alpha: Annotated[float, typer.Option(help="True exponent of the gap, for example -0.10")],
    against: Annotated[float, typer.Option(help="Exponent to tell it from, for example -0.12")],
    runs: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of training runs; may be given several times; default: 4, 6, 8, 12, 16"
        ),
    ] = None,
    points: Annotated[int, typer.Option(help="Frontier points of each run")] = 6,
    decades: Annotated[
        float, typer.Option(help="Compute that all runs cover together, in factors of ten")
    ] = 3.0,
    run_noise: Annotated[
        float,
        typer.Option(help="Scatter of the gap from run to run, relative (0.01: 1 %)"),
    ] = 0.01,
    point_noise: Annotated[
        float, typer.Option(help="Scatter of the gap within a run, relative (0.01: 1 %)")
    ] = 0.005,
    optimal_share: Annotated[
        float, typer.Option(help="J* as a share of the loss at the middle of the compute")
    ] = 0.5,
    optimal_error: Annotated[
        float,
        typer.Option(help="Standard error of J*, relative (0.01: 1 %); needs --subtracted"),
    ] = 0.0,
    subtracted: Annotated[
        bool, typer.Option("--subtracted", help="The gap is loss - J*, not measured directly")
    ] = False,
    confidence: Annotated[float, typer.Option(help="Of the interval, a share")] = 0.95,
    studies: Annotated[int, typer.Option(help="Synthetic studies for every number of runs")] = 200,
    bootstrap: Annotated[int, typer.Option(help="Bootstrap draws of a study")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic studies")] = 0,
) -> None:
    """Say how many training runs tell one exponent from another, by synthetic studies.

    Power: the share of studies whose interval leaves the other exponent out.
    """
    import pandas as pd

    from jstar.progress import Progress
    from jstar.scaling.simulate import Truth
    from jstar.scaling.simulate import power as simulated_power

    for name, value in (("--alpha", alpha), ("--against", against)):
        if value >= 0:
            raise JstarError(
                f"power: {name} = {value:g}, an exponent of a gap that falls is below 0"
            )
    if optimal_error and not subtracted:
        raise JstarError(
            f"power: --optimal-error = {optimal_error:g} needs --subtracted, a gap measured "
            "directly is free of the error of J*"
        )
    truth = Truth(
        alpha=alpha,
        optimal_share=optimal_share,
        points=points,
        decades=decades,
        run_noise=run_noise,
        point_noise=point_noise,
        optimal_error=optimal_error,
        direct=not subtracted,
    )
    counts, rows = sorted(set(runs or (4, 6, 8, 12, 16))), []
    with Progress("power", studies * len(counts), "studies") as bar:
        for count in counts:
            rows.append(
                simulated_power(
                    alpha, against, runs=[count], truth=truth, confidence=confidence,
                    studies=studies, draws=bootstrap, seed=seed,
                )
            )  # fmt: skip
            bar.advance(studies)
    table = pd.concat(rows)
    typer.echo(table.to_string(index=False, float_format="{:.4f}".format))
    enough = table.loc[table["power"] >= POWER, "runs"].min()
    if pd.isna(enough):
        typer.echo(f"none of these reaches a power of {POWER:g}: more runs, decades, or less noise")
    else:
        typer.echo(f"{enough} runs tell {alpha:g} from {against:g} with a power of {POWER:g}")


@app.command()
def figures(
    name: Annotated[str | None, typer.Argument(help="Name of one figure; default: all")] = None,
    config: Config = Path("config/digits.yaml"),
    results: Results = RESULTS,
    fits: Annotated[
        Path | None, typer.Option(help="Folder that 'jstar fit --out' wrote, instead of a study's")
    ] = None,
    optimal: Annotated[Path | None, typer.Option(help="With --fits: table of J*")] = None,
    out: Annotated[Path | None, typer.Option(help="With --fits: folder of the figures")] = None,
) -> None:
    """Draw the study's figures from its tables: NAME.pdf, .png and the numbers."""
    from jstar.figures import FIGURES
    from jstar.figures.stage import draw_figure

    given = [part is not None for part in (fits, optimal, out)]
    if any(given) and not all(given):
        raise JstarError("figures: --fits, --optimal and --out must be given together")
    layout = _layout(config, results)
    for figure in [name] if name else FIGURES:
        draw_figure(
            figure,
            layout.study,
            fits or layout.fits,
            optimal or layout.curve,
            out or layout.figures,
        )


@app.command()
def notebook(
    path: Annotated[
        Path, typer.Argument(help="Notebook, for example notebooks/inspect_fits.ipynb")
    ],
    config: Config,
    out: Annotated[Path, typer.Option(help="HTML page to write")],
    results: Results = RESULTS,
) -> None:
    """Execute a notebook on a study's tables and keep it as HTML."""
    from jstar.figures.notebook import run_notebook

    _layout(config, results)
    run_notebook(path, out, {"study_file": str(config), "results": str(results)})


@app.command()
def plan(config: Config, results: Results = RESULTS) -> None:
    """Print parameters, FLOPs, expected hours and disk of every run, before anything is spent."""
    from jstar.plan import plan_study

    typer.echo(plan_study(_layout(config, results)))


def main() -> None:
    """Entry point: JstarError becomes one sentence and exit status 2."""
    try:
        app()
    except JstarError as error:
        print(f"jstar: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
