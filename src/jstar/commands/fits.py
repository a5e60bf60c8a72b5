"""Subcommands on tables: fit, figures, notebook, report; and on Snakemake's: report-check."""

from pathlib import Path
from typing import Annotated, Any

import typer

from jstar.commands.options import Config, Results, app, layout_of
from jstar.constants import RESULTS
from jstar.errors import JstarError


def _foreign(text: str) -> Any:
    """An option of fit that is for other tables than a study's."""
    return typer.Option(help=text, rich_help_panel="Fitting anybody's tables")


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds another's files: the tables would lie among them, or on them."""
    if out.exists() and not out.is_dir():
        raise JstarError(f"--out {out}: is a file, allowed is a folder")
    there = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if there and not (out / "fits.json").is_file():
        raise JstarError(
            f"--out {out}: holds files that are not of 'jstar fit' ({', '.join(there[:3])}"
            f"{' ...' if len(there) > 3 else ''}); allowed are a new or empty folder, and one that "
            "it wrote before"
        )


# What is drawn: a study, or the tables of a fit of anybody's losses.
StudyOrFits = Annotated[
    Path | None,
    typer.Option("--config", help="Study file; default: config/digits.yaml, none with --fits"),
]
FitsFolder = Annotated[
    Path | None, typer.Option(help="Folder that 'jstar fit --out' wrote, instead of a study's")
]
FitsCurve = Annotated[Path | None, typer.Option(help="With --fits: table of J*, if there is one")]


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
            "Training process (edm, edm2, vp, ve, v, fm, sd3, x0): its weights make the total "
            "loss; default: no total"
        ),
    ] = None,
    confidence: Annotated[
        float | None, _foreign("Of all intervals, a share; default: 0.95")
    ] = None,
    bootstrap: Annotated[int | None, _foreign("Bootstrap draws; default: 1000")] = None,
    min_images: Annotated[
        int | None,
        _foreign("Leave out snapshots before this many images (or tokens); default: 0"),
    ] = None,
    onset: Annotated[
        bool | None,
        _foreign("Fit the joint law from where two sizes' loss last bends down; default: yes"),
    ] = None,
    loss_name: Annotated[
        str | None, _foreign("What the loss is, for the tables: cross-entropy per token")
    ] = None,
    flop_convention: Annotated[
        str | None, _foreign("How FLOPs were counted, for the tables: 6 x parameters x tokens")
    ] = None,
) -> None:
    """Fit the raw, corrected and free law: of a study (--config), or of anybody's tables.

    A table of losses needs the columns run (name of the training run), params
    (number of parameters), flops (training compute so far, FLOPs) and loss (any
    that falls with compute); without sigma (noise scale) it is one loss, the
    total. The columns images (or tokens) seen, loss_se, gap and gap_se improve
    the fit. Columns are separated by comma, semicolon or TAB, their names in any
    case. J* is interpolated between the noise scales of its table.
    """
    from jstar.config import FitConfig
    from jstar.manifest import require_of_run
    from jstar.noise import process as named_process
    from jstar.scaling.stage import write_fits
    from jstar.scaling.summary import summary

    choices = {
        "confidence": confidence, "bootstrap": bootstrap, "min_images": min_images, "onset": onset,
    }  # fmt: skip
    given = {key: value for key, value in choices.items() if value is not None}
    if config is not None:
        if losses or optimal or out or process or given or loss_name or flop_convention:
            raise JstarError(
                "fit: a study (--config) says itself what is fitted; --losses, --optimal, --out, "
                "--process, --confidence, --bootstrap, --min-images, --onset, --loss-name "
                "and --flop-convention are for other tables"
            )
        layout = layout_of(config, results)
        study = layout.study
        tables = [layout.losses(model, seed) for model, seed in study.runs()]
        require_of_run(tables)
        fits = write_fits(
            tables,
            layout.curve,
            layout.fits,
            config=study.fit,
            process=study.process,
            ema=study.ema,
            tune=layout.tune / "tune.csv" if study.tuned_models else None,
        )
        typer.echo("\n".join(summary(fits, layout.fits)))
        return
    if not losses or out is None:
        raise JstarError("fit: give either --config, or --losses and --out (and --optimal)")
    _refuse_foreign(out)
    chosen = named_process(process) if process is not None else None
    fits = write_fits(
        losses, optimal, out, config=FitConfig.checked(given, "fit"), process=chosen,
        loss_name=loss_name, flop_convention=flop_convention,
    )  # fmt: skip
    typer.echo("\n".join(summary(fits, out)))


@app.command()
def figures(
    name: Annotated[str | None, typer.Argument(help="Name of one figure; default: all")] = None,
    config: StudyOrFits = None,
    results: Results = RESULTS,
    fits: FitsFolder = None,
    optimal: FitsCurve = None,
    out: Annotated[Path | None, typer.Option(help="With --fits: folder of the figures")] = None,
) -> None:
    """Draw the study's figures from its tables: NAME.pdf, .png and the numbers."""
    from jstar.figures import figures_of
    from jstar.figures.stage import draw_figure, draw_study_figure
    from jstar.pool import in_processes
    from jstar.records import read_table

    if (fits is None) != (out is None) or (optimal and not fits):
        raise JstarError("figures: --fits and --out must be given together, --optimal with them")
    if config is None and fits and out:
        lengths = read_table(fits / "averages.csv", ("ema",))["ema"].nunique()
        cooldown = not read_table(fits / "cooldown.csv").empty
        wanted = [name] if name else figures_of("scaling", lengths, cooldown)
        in_processes(draw_figure, [(n, fits, optimal, out) for n in wanted], "draw", "figures")
        return
    layout = layout_of(config or Path("config/digits.yaml"), results)
    study = layout.study
    known = figures_of(study.kind, len(study.lengths), study.train.cooldown is not None)
    places = fits or layout.tables, optimal or layout.curve, out or layout.figures
    wanted = [name] if name else known
    in_processes(draw_study_figure, [(n, study, *places) for n in wanted], "draw", "figures")


@app.command()
def optimal_figures(
    out: Annotated[Path, typer.Option("--out", help="Folder of the figures")],
    curves: Annotated[
        list[Path] | None,
        typer.Argument(help="Tables curve.csv, each in a folder named after its dataset"),
    ] = None,
    comparison: Annotated[
        Path | None, typer.Option(help="Folder that 'jstar optimal-compare' wrote")
    ] = None,
) -> None:
    """Draw J*(sigma) of several datasets, and its estimators side by side."""
    from jstar.figures.estimators import draw_estimators

    if not curves and comparison is None:
        raise JstarError("optimal-figures: give tables curve.csv, or --comparison, or both")
    names = draw_estimators(curves or [], comparison, out)
    typer.echo(f"{out}: {', '.join(names)}")


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

    layout = layout_of(config, results)
    parameters = {"study_file": str(config), "results": str(results)}
    run_notebook(path, out, parameters, [layout.fits / "fits.json", layout.curve])


@app.command()
def report(
    config: StudyOrFits = None,
    results: Results = RESULTS,
    fits: FitsFolder = None,
    optimal: FitsCurve = None,
    figures: Annotated[
        Path | None, typer.Option(help="With --fits: folder that 'jstar figures --out' wrote")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --fits: page (.html) to write")] = None,
) -> None:
    """Put all of a study on one page that needs no network: report.html."""
    from jstar.report.page import write_study_report, write_tables_report

    if (fits is None) != (out is None) or ((optimal or figures) and not fits):
        raise JstarError(
            "report: --fits and --out must be given together, --optimal and --figures with them"
        )
    if fits and out:
        if config is not None:
            raise JstarError("report: give either --config, or --fits and --out")
        write_tables_report(fits, optimal, figures, out)
        typer.echo(str(out))
        return
    layout = layout_of(config or Path("config/digits.yaml"), results)
    write_study_report(layout)
    typer.echo(str(layout.report))


@app.command()
def report_check(
    page: Annotated[Path, typer.Argument(help="Page that 'snakemake --report' wrote")],
) -> None:
    """Fail if a caption of the report is broken, and name it."""
    from jstar.report.captions import check_report

    check_report(page)
