"""Cooldowns beside averages: known changes, known exponents, and what ignores them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jstar.config import FitConfig
from jstar.constants import COOLDOWN
from jstar.errors import JstarError
from jstar.scaling.cooldown import cooldown_frame, cooldown_laws_frame
from jstar.scaling.inputs import average_lengths, select
from jstar.scaling.noise_scales import StudyFits
from jstar.scaling.stage import write_fits
from jstar.scaling.tables import averages_frame

SIZES = np.geomspace(1e5, 1e7, 4)
OPTIMAL = {0.5: 0.02, 4.0: 0.3}
EXPONENTS = {"average": (0.4, 0.3), "cooldown": (0.5, 0.35)}
LOWEST = 0.2  # the length whose gap is 3 % below that of 0.1
SNAPSHOTS, ENDS = np.geomspace(1e4, 3e6, 9).round(), (2, 4, 6, 8)


def alpha(of):
    a, b = EXPONENTS[of]
    return -a * b / (a + b)


def gap(params, images, of, sigma):
    a, b = EXPONENTS[of]
    return 0.1 * sigma**-0.5 * ((params / 1e6) ** -a + (images / 1e5) ** -b)


@pytest.fixture(scope="module")
def losses():
    """Four sizes and two seeds, the second 2 % worse throughout, its cooldown another 1 %."""
    rows = []
    for k, params in enumerate(SIZES):
        for seed in (0, 1):
            for index, images in enumerate(SNAPSHOTS):
                for sigma, optimal in OPTIMAL.items():
                    plain, luck = gap(params, images, "average", sigma), 1 + 0.02 * seed
                    found = {0.1: plain * luck, LOWEST: 0.97 * plain * luck}
                    if index in ENDS:
                        found[COOLDOWN] = (
                            gap(params, images, "cooldown", sigma) * luck * (1 + 0.01 * seed)
                        )
                    rows += [
                        (f"m{k}-s{seed}", f"m{k}", params, seed, index, images, 6 * params * images,
                         ema, "train", sigma, optimal + value, value)
                        for ema, value in found.items()
                    ]  # fmt: skip
    columns = ["run", "model", "params", "seed", "snapshot", "images", "flops", "ema", "split",
               "sigma", "loss", "gap"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(source="t", line=1)


def study(losses, **config):
    """What the frames read of a study's fits."""
    scales = tuple(
        SimpleNamespace(sigma=s, points=SimpleNamespace(optimal=v, optimal_se=0.0))
        for s, v in OPTIMAL.items()
    )
    keys = {"bootstrap": 100, "calibration": 100}
    none = pd.DataFrame({"fitted_from": [0.0]})
    return StudyFits(losses, scales, FitConfig(**keys, **config), none, losses[:0], 0.0)


def test_the_change_against_the_fitted_and_the_best_average(losses):
    frame = cooldown_frame(study(losses))
    assert len(frame) == len(OPTIMAL) * len(SIZES) * len(ENDS)
    assert list(dict.fromkeys(frame["sigma"])) == list(OPTIMAL)
    assert set(frame["images"]) == {SNAPSHOTS[k] for k in ENDS}
    assert set(frame["of"]) == {"gap"}
    assert set(frame["ema"]) == {0.1}
    assert set(frame["best_ema"]) == {LOWEST}
    for row in frame.itertuples():
        end, beside = (gap(row.params, row.images, of, row.sigma) for of in ("cooldown", "average"))
        ratio = end / beside * np.sqrt(1.01)
        assert row.change_percent == pytest.approx(100 * (ratio - 1))
        error = np.log(1.01) / 2  # of a mean of two: half their distance
        assert row.change_se == pytest.approx(100 * ratio * error)
        assert row.change_best_percent == pytest.approx(100 * (ratio / 0.97 - 1))
        assert row.gap_average == pytest.approx(1.01 * beside)
        assert row.loss_best == pytest.approx(OPTIMAL[row.sigma] + 0.97 * 1.01 * beside)
    one = cooldown_frame(study(losses[losses["seed"] == 0]))
    assert one["change_se"].isna().all()
    plain = cooldown_frame(study(losses.drop(columns="gap")))
    assert set(plain["of"]) == {"loss"}
    assert plain["gap_cooldown"].isna().all()
    row = plain.iloc[0]
    assert row["change_percent"] == pytest.approx(
        100 * (row["loss_cooldown"] / row["loss_average"] - 1), rel=0.05
    )
    other = cooldown_frame(study(losses, ema=LOWEST))
    assert other["change_percent"].to_numpy() == pytest.approx(frame["change_best_percent"])
    assert cooldown_frame(study(losses, ema="cooldown")).equals(frame)


def test_an_average_not_measured_at_a_snapshot_is_no_rival(losses):
    """The longest averages are left out of early snapshots."""
    few = losses[(losses["ema"] != LOWEST) | (losses["snapshot"] > ENDS[0])]
    frame = cooldown_frame(study(few))
    early = frame["images"] == SNAPSHOTS[ENDS[0]]
    assert set(frame.loc[early, "best_ema"]) == {0.1}
    assert set(frame.loc[~early, "best_ema"]) == {LOWEST}
    chosen = cooldown_frame(study(few, ema=LOWEST))
    assert chosen.loc[early, "change_percent"].isna().all()


def test_both_exponents_are_found(losses):
    # Errors, so that the law has something to weigh: alike for all that was measured at a point.
    rng = np.random.default_rng(0)
    point = losses.groupby(["run", "snapshot", "sigma"]).ngroup()
    factor = np.exp(0.002 * rng.standard_normal(point.max() + 1))[point]
    noisy = losses.assign(gap=losses["gap"] * factor)
    laws = cooldown_laws_frame(study(noisy))
    assert len(laws) == 2 * len(OPTIMAL)
    assert set(laws["n"]) == {len(SIZES) * len(ENDS)}
    assert (laws["status"] == "converged").all()
    truth = laws["of"].map(alpha)
    assert laws["alpha"].to_numpy() == pytest.approx(truth, abs=0.01)
    assert (laws["alpha_low"] < laws["alpha"]).all()
    assert (laws["alpha"] < laws["alpha_high"]).all()
    late = cooldown_laws_frame(study(noisy, min_images=int(SNAPSHOTS[ENDS[1]])))
    assert set(late["n"]) == {len(SIZES) * 3}
    few = noisy[(noisy["ema"] != COOLDOWN) | (noisy["snapshot"] == ENDS[-1])]
    told = cooldown_laws_frame(study(few))
    assert told["alpha"].isna().all()
    assert told["status"].str.contains("all sizes saw the same number of images").all()


def test_nothing_else_takes_a_cooldown_for_an_average(losses):
    assert average_lengths(losses) == [0.1, LOWEST]
    turned = losses.sort_values("ema")  # the ends first
    assert set(select(turned)["ema"]) == {0.1}
    assert set(select(turned, ema=COOLDOWN)["ema"]) == {COOLDOWN}
    plain = losses[losses["ema"] != COOLDOWN]
    assert averages_frame(losses, 0.1).equals(averages_frame(plain, 0.1))
    assert averages_frame(losses, COOLDOWN).equals(averages_frame(plain, 0.1))
    assert cooldown_frame(study(plain)).empty
    assert cooldown_laws_frame(study(plain)).empty
    with pytest.raises(JstarError, match="no row has ema = 0"):
        select(plain, ema=COOLDOWN)


def test_a_fit_takes_the_ends_where_it_is_told_to(losses, tmp_path):
    table = losses[losses["sigma"] == 4.0].drop(columns=["source", "line"])
    table.to_csv(tmp_path / "losses.csv", index=False)
    curve = pd.DataFrame({"sigma": [4.0], "loss": [OPTIMAL[4.0]], "stderr": [0.0]})
    curve.to_csv(tmp_path / "curve.csv", index=False)
    config, out = FitConfig(bootstrap=100, calibration=100, ema="cooldown"), tmp_path / "out"
    write_fits([tmp_path / "losses.csv"], tmp_path / "curve.csv", out, config=config, process=None)
    written = pd.read_csv(out / "losses.csv")
    assert set(written["ema"]) == {0.1, LOWEST, COOLDOWN}
    assert set(written.dropna(subset="loss_fit")["ema"]) == {COOLDOWN}
    parametric = pd.read_csv(out / "parametric.csv").set_index(["of", "floor"])
    assert parametric.loc[("fitted", "optimal"), "alpha"] == pytest.approx(
        alpha("cooldown"), abs=0.01
    )
    assert len(pd.read_csv(out / "cooldown_laws.csv")) == 2
    assert len(pd.read_csv(out / "cooldown.csv")) == len(SIZES) * len(ENDS)
    assert "none: the ends of cooldowns" in (out / "tables/checklist.md").read_text()
