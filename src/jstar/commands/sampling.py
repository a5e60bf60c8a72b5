"""Subcommands on samples: sample, quality, theory."""

import typer

from jstar.commands.options import (
    RESULTS,
    Config,
    Device,
    ModelName,
    Results,
    SeedNumber,
    Threads,
    app,
    layout_of,
    set_threads,
)


@app.command()
def sample(
    config: Config,
    model: ModelName,
    seed: SeedNumber = 0,
    results: Results = RESULTS,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Draw images of one run's snapshots and measure their quality: quality.csv, samples.npz.

    The part `sample` of the study says how; any study has it, with EDM's sampler by default.
    """
    set_threads(threads)
    from jstar.devices import claim_gpus
    from jstar.sample.stage import write_quality

    layout = layout_of(config, results)
    run, out = layout.run(model, seed), layout.quality(model, seed)
    layout.study.entry(model)
    with claim_gpus(0 if device else min(1, layout.study.resources.train_gpus)):
        frame = write_quality(layout.study, run, layout.data, layout.reference, out, device)
    last = frame.iloc[-1 - len(layout.study.sample.sweep)]
    typer.echo(
        f"{out}: FID {last['fid']:.4g} ({last['fid_low']:.4g} to {last['fid_high']:.4g}) of "
        f"{last['sampled']} images, features {last['features']}"
    )
