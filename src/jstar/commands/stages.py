"""Subcommands of the stages up to evaluate, and what looks at a study: check, plan, status."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jstar.commands.options import (
    Config,
    Device,
    ModelName,
    Results,
    SeedNumber,
    Threads,
    app,
    layout_of,
    say_changed_source,
    set_threads,
)
from jstar.constants import RESULTS
from jstar.errors import JstarError

if TYPE_CHECKING:
    from jstar.train import TrainStatus

Requeue = Annotated[
    bool, typer.Option("--requeue", help="In a SLURM job: requeue it when its time is up")
]


@app.command()
def check(
    text: Annotated[str | None, typer.Option(help="Study as JSON text, instead of a file")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the complete study here")] = None,
    results: Results = RESULTS,
) -> None:
    """Check a study file, and its dataset as far as that is possible before prepare."""
    from jstar.config import Study
    from jstar.config.reading import parse_json
    from jstar.data.check import check_study
    from jstar.layout import Layout
    from jstar.records import write_text

    if (text is None) == (config is None):
        raise JstarError("check: give either --config FILE or --text JSON")
    if config is not None:
        study, origin = Study.load(config), str(config)
    else:
        study, origin = Study.parse(parse_json(text or "", "--text"), "--text"), "--text"
    check_study(study, origin)
    say_changed_source(Layout(study, results))
    if out is not None:
        write_text(out, study.model_dump_json(indent=2) + "\n")
    else:
        typer.echo(f"{config or 'study'}: study '{study.study}' is fine, {len(study.runs())} runs")


@app.command("prepare")
def prepare_command(
    config: Config,
    results: Results = RESULTS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be read, write nothing")
    ] = False,
) -> None:
    """Read the dataset and write images.npy, labels.npy and the distribution card."""
    from jstar.data import open_dataset, prepare
    from jstar.data.reading import read_sample, reading_of

    layout = layout_of(config, results)
    sigma_data = layout.study.train.sigma_data
    if dry_run:
        typer.echo("\n".join(read_sample(layout.study.dataset).lines(sigma_data)))
        return
    card = prepare(layout.study.dataset, layout.data)
    dataset = open_dataset(layout.data, verify=False)
    dataset.labels_for(layout.study.conditional)  # refuses, before more is spent
    typer.echo("\n".join(reading_of(card).lines(sigma_data)))
    typer.echo(f"{layout.data}: {card.count} images of shape {card.shape}, card {card.id}")


@app.command()
def optimal(
    config: Config,
    results: Results = RESULTS,
    threads: Threads = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="k/n: only the sums of shard k of n")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--form", help="Instead of the study's optimal.form; needs --out")
    ] = None,
    label_drop: Annotated[
        float,
        typer.Option(
            help="Share of draws without their label, for the training loss under label drop "
            "(models are evaluated with all labels); needs --out"
        ),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Another table (.csv) than the study's curve.csv")
    ] = None,
) -> None:
    """Estimate the optimal loss J*(sigma) of the dataset: curve.csv."""
    set_threads(threads)
    from jstar.config import OptimalConfig
    from jstar.optimal.shards import parse_shard, write_shard
    from jstar.optimal.stage import write_curve

    layout = layout_of(config, results)
    study = layout.study
    if (form is not None or label_drop) and (out is None or shard is not None):
        raise JstarError(
            "optimal: --form and --label-drop make another curve than the study's, give a whole "
            "one (no --shard) a table of its own with --out"
        )
    if shard is not None:
        number, shards = parse_shard(shard)
        write_shard(study, layout.data, layout.shard(number, shards), number, shards)
        return
    if form is not None:
        changed = OptimalConfig.checked({**study.optimal.model_dump(), "form": form}, "--form")
        study = study.model_copy(update={"optimal": changed})
    target = out or layout.curve
    curve = write_curve(study, layout.data, target, label_drop=label_drop)
    _say_closure(target, *curve.closure)


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

    layout = layout_of(config, results)
    shards = layout.study.optimal.shards
    names = files or [layout.shard(k, shards) for k in range(1, shards + 1)]
    curve = write_merged(layout.study, layout.data, names, layout.curve)
    _say_closure(layout.curve, *curve.closure)


def _say_closure(path: Path, got: float, expected: float) -> None:
    typer.echo(f"{path}: I-MMSE closure {got:.4f} nats, ln N = {expected:.4f}")


@app.command()
def optimal_compare(
    config: Config,
    results: Results = RESULTS,
    queries: Annotated[
        int, typer.Option(help="Noisy draws; the moment form costs minutes at CIFAR-10's size")
    ] = 2000,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; default: beside the study's curve.csv")
    ] = None,
    threads: Threads = None,
) -> None:
    """Compare all estimators and forms of J* on the dataset: tables for 'jstar optimal-figures'."""
    set_threads(threads)
    from jstar.config import OptimalConfig
    from jstar.data import open_dataset
    from jstar.optimal.paper.comparison import write_comparison

    layout = layout_of(config, results)
    study = layout.study
    chosen = OptimalConfig.checked({**study.optimal.model_dump(), "queries": queries}, "--queries")
    dataset = open_dataset(layout.data)
    write_comparison(dataset, study.sigmas.values, chosen, out or layout.comparison)


@app.command()
def oracle(config: Config, results: Results = RESULTS, threads: Threads = None) -> None:
    """Write the oracle set: the evaluation draws and their posterior means D*."""
    set_threads(threads)
    from jstar.optimal.stage import write_oracle

    layout = layout_of(config, results)
    write_oracle(layout.study, layout.data, layout.oracle)


@app.command("tune")
def tune_command(
    config: Config,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Size to tune; without it, gather what all sizes chose"),
    ] = None,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
    requeue: Requeue = False,
) -> None:
    """Choose the learning rate of one size by short trials, for all its runs.

    With --model: trains that size for tune.share of a run at rates around the
    width rule's, measures each as 'jstar evaluate' does, and keeps the minimum
    of a parabola through the best. Resumes by itself; exit status 75 means: not
    finished, start me again. Without --model, once all sizes are tuned: the
    tables tune.csv (chosen rates with intervals, what mistuning may still cost)
    and trials.csv, and their figure. Only for studies with tune.enabled, whose
    'jstar train' waits for it.
    """
    from jstar.cluster.launch import launch, threads_per_process

    layout = layout_of(config, results)
    if model is None:
        from jstar.figures.tune import draw_tuning
        from jstar.tune import write_tuning

        frame = write_tuning(layout)
        draw_tuning(layout.tune)
        for _, row in frame.iterrows():
            typer.echo(
                f"{row['model']}: learning rate {row['rate']:g} ({row['rate_low']:.2g} to "
                f"{row['rate_high']:.2g}, {row['status']}), {row['gain_percent']:.2g} % below the "
                f"loss at the prior {row['prior_rate']:.3g}; another rate might still save "
                f"{row['cost_percent']:.2g} %"
            )
        return
    size, resources = model, layout.study.resources

    def work() -> "TrainStatus":
        from jstar.tune import tune_size

        set_threads(threads_per_process(threads))
        return tune_size(layout, size, device=device)

    gpus, nodes = (0, 1) if device else (resources.train_gpus, resources.train_nodes)
    raise typer.Exit(launch(work, gpus=gpus, nodes=nodes, threads=threads, requeue=requeue))


@app.command("train")
def train_command(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
    requeue: Requeue = False,
) -> None:
    """Train one size with one seed; resumes by itself from the run's state folder.

    Runs on as many GPUs and nodes as the study's resources say; with --device in this process.
    Exit status 75 means: not finished, start me again.
    """
    from jstar.cluster.launch import launch, threads_per_process
    from jstar.train import TrainStatus, train

    layout = layout_of(config, results)
    layout.study.require_run(model, seed)
    study, resources = layout.tuned(model).study, layout.study.resources

    def work() -> TrainStatus:
        return train(
            study,
            model,
            seed,
            layout.data,
            layout.run(model, seed),
            layout.state(model, seed),
            curve=layout.curve,
            device=device,
            threads=threads_per_process(threads),
        )

    gpus, nodes = (0, 1) if device else (resources.train_gpus, resources.train_nodes)
    raise typer.Exit(launch(work, gpus=gpus, nodes=nodes, threads=threads, requeue=requeue))


@app.command()
def status(config: Config, results: Results = RESULTS) -> None:
    """Show all runs of a study: state, images, loss above J* so far, speed, time left."""
    from jstar.train.status import status_table, study_status
    from jstar.tune.status import tune_status

    layout = layout_of(config, results)
    say_changed_source(layout)
    typer.echo(status_table(study_status(layout.tuned()), tune_status(layout)))


@app.command()
def evaluate(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="k/n: only every n-th snapshot, from the k-th on")
    ] = None,
) -> None:
    """Measure loss and direct gap of every snapshot of one run: losses.csv.

    Goes on where it was stopped, snapshot by snapshot. With --shard it measures a
    share, and a call without it then only writes the table.
    """
    set_threads(threads)
    from jstar.cluster.gpus import claim_gpus
    from jstar.evaluate import measure_share, write_losses
    from jstar.evaluate.parts import parse_share

    layout = layout_of(config, results)
    layout.study.require_run(model, seed)
    run, out = layout.run(model, seed), layout.losses(model, seed)
    where = run, layout.data, layout.oracle
    state = layout.state(model, seed)
    with claim_gpus(0 if device else min(1, layout.study.resources.train_gpus)):
        if shard is None:
            write_losses(layout.study, *where, out, state, device)
        else:
            share = parse_share(shard)
            done = layout.losses_share(model, seed, *share)
            measure_share(layout.study, *where, done, state, share, device)
