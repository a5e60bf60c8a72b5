"""Correlation of gap and FID over runs, on tables whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from jstar.errors import JstarError
from jstar.records import LOSSES_COLUMNS
from jstar.sampling.quality.correlation import correlation, write_quality_tables

SIGMAS = ("0.1", "2")


def points(runs=8, snapshots=5, scatter=0.0, seed=0):
    """FID = gap^0.7 at sigma = 2; the gap at 0.1 is noise, the loss has a floor that hides it."""
    rng = np.random.default_rng(seed)
    rows = []
    for run in range(runs):
        for snapshot in range(snapshots):
            gap = np.exp(rng.normal() - snapshot)
            fid = 30 * gap**0.7 * np.exp(scatter * rng.normal())
            for sigma in SIGMAS:
                value = gap if sigma == "2" else np.exp(rng.normal())
                rows.append(
                    (f"r{run}", 10.0**snapshot, sigma, value + 5 * rng.random(), value, fid)
                )
    return pd.DataFrame(rows, columns=["run", "flops", "sigma", "loss", "gap", "fid"])


def at(frame, sigma, of, among="all"):
    rows = frame[(frame["sigma"] == sigma) & (frame["of"] == of) & (frame["among"] == among)]
    return rows.iloc[0]


def test_a_power_law_is_found_at_its_noise_scale_and_in_the_gap_only():
    got = correlation(points())
    exact = at(got, "2", "gap")
    assert exact["pearson"] == pytest.approx(1)
    assert exact["spearman"] == pytest.approx(1)
    assert (exact["points"], exact["runs"]) == (40, 8)
    assert abs(at(got, "0.1", "gap")["spearman"]) < 0.5
    assert at(got, "2", "loss")["spearman"] < 0.9
    assert at(got, "2", "gap", "last")["points"] == 8


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """True Pearson coefficient of ln gap and ln FID: of the slopes and the scatter."""
    hits = 0
    for seed in range(30):
        table = points(runs=12, scatter=1.0, seed=seed)
        row = at(correlation(table), "2", "gap")
        spread = 0.7 * np.sqrt(1 + 2)  # of ln gap: 1 by run, 2 by snapshot 0 ... 4
        truth = spread / np.hypot(spread, 1.0)
        hits += row["pearson_low"] <= truth <= row["pearson_high"]
    assert hits >= 24


def test_the_coefficients_of_scipy():
    table = points(scatter=0.8)
    rows = table[table["sigma"] == "2"].assign(gap=lambda f: f["gap"].round(1) + 0.1)  # ties
    got = at(correlation(rows), "2", "gap")
    x, y = np.log(rows["gap"]), np.log(rows["fid"])
    assert got["pearson"] == pytest.approx(pearsonr(x, y)[0])
    assert got["spearman"] == pytest.approx(spearmanr(x, y)[0])


def test_few_runs_have_no_interval_and_few_points_no_coefficient():
    assert np.isnan(at(correlation(points(runs=3)), "2", "gap")["pearson_low"])
    assert np.isnan(at(correlation(points(runs=2, snapshots=1)), "2", "gap")["pearson"])


@pytest.fixture
def tables(tmp_path):
    """Two runs' quality.csv and losses.csv, with a sweep row that must not count."""

    def write(features=("a", "a")):
        out = []
        for run, name in enumerate(features):
            losses = pd.DataFrame(
                [
                    (
                        "s",
                        f"r{run}",
                        "m",
                        9,
                        0,
                        k,
                        100 * k,
                        1e3 * k,
                        0.1,
                        split,
                        2.0,
                        1,
                        0,
                        0.1 / k,
                        0,
                    )
                    for k in (1, 2)
                    for split in ("train", "holdout")
                ],
                columns=list(LOSSES_COLUMNS),
            )
            quality = pd.DataFrame(
                [(f"r{run}", k, 0.1, name, fid) for k, fid in ((1, 20.0), (2, 10.0), (2, 999.0))],
                columns=["run", "snapshot", "ema", "features", "fid"],
            )
            files = tmp_path / f"quality{run}.csv", tmp_path / f"losses{run}.csv"
            quality.to_csv(files[0], index=False)
            losses.to_csv(files[1], index=False)
            out.append(files)
        return [list(group) for group in zip(*out, strict=True)]

    return write


def test_tables_of_runs_are_joined_without_the_sweep(tables, tmp_path):
    got = write_quality_tables(*tables(), tmp_path / "out")
    assert at(got, "2.0", "gap")["points"] == 4
    assert at(got, "2.0", "gap", "last")["points"] == 2
    assert len(pd.read_csv(tmp_path / "out/quality.csv")) == 6


def test_fids_of_different_features_are_refused(tables, tmp_path):
    with pytest.raises(JstarError, match=r"different features \(a, b\)"):
        write_quality_tables(*tables(("a", "b")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
