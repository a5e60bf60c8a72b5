"""The fit stage: from tables of losses and J* to the tables of a study."""

from pathlib import Path

from jstar.config import FitConfig
from jstar.constants import TOTAL
from jstar.curve import OptimalLoss, read_curve
from jstar.manifest import (
    CARD,
    CONVENTION,
    UNIT,
    parents,
    require_together,
    say_unrecorded,
)
from jstar.noise import Process
from jstar.records import provenance, write_record, write_table, write_text
from jstar.scaling import tables as frames
from jstar.scaling.approaches import agreements, approaches_frame, isoflop_of
from jstar.scaling.cooldown import cooldown_frame, cooldown_laws_frame
from jstar.scaling.inputs import data_word, read_losses, stated, with_mistuning
from jstar.scaling.noise_scales import StudyFits, fit_study
from jstar.scaling.paper_tables import paper_tables
from jstar.scaling.sensitivity import sensitivity_frame


def _interpolated(study: StudyFits, curve: OptimalLoss | None) -> list[float]:
    """The noise scales of the losses at which J* lies between those of the curve."""
    sigmas = [s.sigma for s in study.scales if s.sigma != TOTAL]
    if curve is None or not sigmas:
        return []
    return [float(s) for s, there in zip(sigmas, curve.holds(sigmas), strict=True) if not there]


def write_fits(
    losses: list[Path],
    optimal: Path | None,
    out: Path,
    *,
    config: FitConfig,
    process: Process | str | None,
    ema: float | None = None,
    loss_name: str | None = None,
    flop_convention: str | None = None,
    tune: Path | None = None,
) -> StudyFits:
    """Fit, and write into `out` the tables fits, verdicts and what figures read.

    These are losses, frontier, onsets, predictions, residuals, residual_tests, profile,
    sensitivity, isoflop, isoflop_minima, parametric, approaches, held_out, averages, cooldown,
    cooldown_laws, expected (.csv, provenance in .json), and tables/*.md and *.tex for a paper. All
    are made before the first is written.

    losses: tables with the columns run, params, flops, loss (and, where known, sigma, loss_se, gap,
    gap_se, model, images or tokens, ema, split). optimal: table of J* (sigma, loss, stderr).
    process: the training process, whose weights make the total. loss_name, flop_convention: what
    loss and compute are; default: what the .json beside the tables says.
    tune: table of the stage tune, whose cost of mistuning widens the joint law's intervals.
    Raises JstarError: one sentence with file, line and column, or with the two tables that are of
    different training distributions or units.
    """
    paths = [Path(p) for p in losses]
    every = [p for p in (*paths, optimal, tune) if p is not None]
    require_together(every, CARD, UNIT)
    require_together(paths, CONVENTION)
    table = read_losses(paths)
    if tune is not None:
        table = with_mistuning(table, tune)
    curve = read_curve(optimal) if optimal is not None else None
    if ema is not None:
        config = config.model_copy(update={"ema": ema})
    study = fit_study(table, curve, config, process)
    origin = provenance(
        loss_unit=loss_name or stated(paths, "loss_unit"),
        flop_convention=flop_convention or stated(paths, "flop_convention"),
        data=data_word(paths),
        losses=[str(p) for p in losses],
        optimal=None if optimal is None else str(optimal),
        tune=None if tune is None else str(tune),
        card_id=None if curve is None else curve.origin.get("card_id"),
        optimal_interpolated=_interpolated(study, curve),
        optimal_fingerprint=None if curve is None else curve.fingerprint,
        process=getattr(process, "name", process),
        ema=config.ema,
        confidence=config.confidence,
        bootstrap=config.bootstrap,
        shared_error=study.shared,
        seed=config.seed,
        **parents(Path(out) / "fits.json", every),
    )
    found = [isoflop_of(scale, study) for scale in study.scales]
    curves, minima = frames.isoflop_frames(study, found)
    written = {
        "losses": frames.losses_frame(study),
        "frontier": frames.frontier_frame(study),
        "onsets": frames.onsets_frame(study),
        "predictions": frames.predictions_frame(study),
        "residuals": frames.residuals_frame(study),
        "residual_tests": frames.tests_frame(study),
        "profile": frames.profile_frame(study),
        "sensitivity": sensitivity_frame(study),
        "isoflop": curves,
        "isoflop_minima": minima,
        "parametric": frames.parametric_frame(study),
        "approaches": approaches_frame(study, found),
        "held_out": frames.held_out_frame(study),
        "averages": frames.averages_frame(study.losses, config.ema),
        "cooldown": cooldown_frame(study),
        "cooldown_laws": cooldown_laws_frame(study),
        "verdicts": frames.verdicts_frame(study),
        "expected": study.expected,
        "fits": frames.fits_frame(study),
    }
    paper = paper_tables(written, study, origin)
    for name, frame in written.items():
        write_table(Path(out) / f"{name}.csv", frame, origin)
    for name, text in paper.items():
        write_text(Path(out) / "tables" / name, text)
    tree = {
        **origin,
        "fits": written["fits"].to_dict("records"),
        "verdicts": written["verdicts"].to_dict("records"),
        "approaches": written["approaches"].to_dict("records"),
        "agreement": agreements(written["approaches"]),
    }
    made = [*(f"{name}.csv" for name in written), *(f"tables/{name}" for name in paper)]
    write_record(Path(out) / "fits.json", tree, [Path(out) / name for name in made])
    say_unrecorded(every)
    return study
