"""The comparison of all estimators, from a prepared dataset to its figures."""

import numpy as np
import pandas as pd
import pytest

from jstar.config import DatasetConfig, OptimalConfig
from jstar.data import open_dataset, prepare
from jstar.errors import JstarError
from jstar.figures.estimators import draw_estimators
from jstar.optimal.paper.comparison import write_comparison
from jstar.optimal.stage import dataset_curve

SIGMAS = [0.4, 0.6, 0.85, 1.2, 2.0, 5.0]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Folder with data/, digits/curve.csv and comparison/ of the digits."""
    root = tmp_path_factory.mktemp("compare")
    prepare(DatasetConfig(name="digits", source="digits"), root / "data")
    dataset = open_dataset(root / "data")
    config = OptimalConfig(queries=600, subset=200, repeats=4)
    write_comparison(dataset, SIGMAS, config, root / "comparison")
    curve = dataset_curve(dataset, SIGMAS, config, conditional=False)
    curve.write(root / "digits" / "curve.csv", card_id=dataset.card.id, seed=0)
    return root


def test_the_bounds_hold_and_the_forms_agree(compared):
    table = pd.read_csv(compared / "comparison" / "estimators.csv")
    loss = table.pivot_table(index="sigma", columns="estimator", values="loss")
    error = table.pivot_table(index="sigma", columns="estimator", values="stderr")
    curve = pd.read_csv(compared / "digits" / "curve.csv")
    np.testing.assert_allclose(loss["exact"], curve["loss"], rtol=1e-9)
    assert (loss["dol"] < loss["exact"] + 3 * error["dol"]).all()
    assert (loss["snis"] > loss["exact"] - 3 * error["snis"]).all()
    forms = pd.read_csv(compared / "comparison" / "forms.csv")
    value, stderr, flops = (
        forms.pivot_table(index="sigma", columns="form", values=name)
        for name in ("loss", "stderr", "flops")
    )
    for name in ("moment", "pair"):
        far = np.abs(value[name] - value["pair+controls"]) / stderr[name]
        assert (far < 4).all()
        assert (stderr["pair+controls"] <= stderr[name]).all()
    assert (stderr["moment"] < stderr["moment, random draws"]).all()
    # Two products for the curve; the moment form one more for each of 6 scales and 2 signs.
    assert (flops["pair"] == 4.0 * 600 * 1797 * 64).all()
    assert (flops["moment"] == flops["pair"] * (1 + 6)).all()


def test_convergence_ends_at_the_exact_loss(compared):
    table = pd.read_csv(compared / "comparison" / "convergence.csv")
    exact = pd.read_csv(compared / "digits" / "curve.csv").set_index("sigma")["loss"]
    truth = exact[table["sigma"].iloc[0]]
    whole = table[(table["varied"] == "L") & (table["value"] == 1797)]
    assert set(whole["estimator"]) == {"dol", "cdol", "snis"}
    assert (np.abs(whole["loss"] - truth) < 5 * whole["stderr"]).all()
    by_size = table[(table["varied"] == "L") & (table["estimator"] == "dol")]
    assert (np.diff(by_size.sort_values("value")["loss"]) > 0).all()
    by_constant = table[table["varied"] == "C"].sort_values("value")
    assert (np.diff(by_constant["loss"]) > 0).all()
    assert by_constant["value"].min() >= 1


def test_the_figures_are_drawn_from_the_tables_alone(compared, tmp_path):
    names = draw_estimators(
        [compared / "digits" / "curve.csv"], compared / "comparison", tmp_path / "figures"
    )
    assert names == [
        "optimal_datasets", "optimal_estimators", "optimal_convergence", "optimal_forms",
    ]  # fmt: skip
    for name in names:
        for suffix in ("pdf", "png", "json"):
            assert (tmp_path / "figures" / f"{name}.{suffix}").stat().st_size > 200
    with pytest.raises(JstarError, match=r"comparison/estimators\.csv: cannot be read"):
        draw_estimators([], tmp_path / "comparison", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(JstarError, match="2 tables of 1 datasets"):
        draw_estimators([compared / "digits" / "curve.csv"] * 2, None, tmp_path / "nothing")
