"""The notebook and what it calls."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from jstar.errors import JstarError
from jstar.figures import inspect
from jstar.figures.notebook import run_notebook

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "inspect_fits.ipynb"


def test_the_notebook_runs_and_shows_its_figures(fitted, tmp_path):
    study = fitted("whole")
    parameters = {"study_file": study.file, "results": str(study.layout.root)}
    run_notebook(NOTEBOOK, tmp_path / "page.html", parameters)
    page = (tmp_path / "page.html").read_text()
    assert (
        len(re.findall(r"<img[^>]*data:image/png", page)) == 4
    )  # curves, residuals, profile, sensitivity
    assert "Traceback" not in page
    with pytest.raises(JstarError, match="cell .* fails with"):
        run_notebook(NOTEBOOK, tmp_path / "no.html", {**parameters, "sigma": 0.7})
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize("name", ["whole", "two sizes"])
@pytest.mark.parametrize("sigma", [4.0, "total"])
def test_every_view_of_every_study(fitted, name, sigma):
    tables = fitted(name).tables
    for view in (inspect.curves, inspect.residuals, inspect.profile, inspect.sensitivity):
        figure = view(tables, sigma)
        figure.canvas.draw()
        plt.close(figure)
    assert list(inspect.laws(tables, sigma).columns) == ["raw", "corrected", "free"]
    assert inspect.verdict(tables, sigma).shape[1] == 1
    laws = [("fitted", f) for f in ("zero", "optimal", "free")] + [("measured", "free")]
    assert list(inspect.joint(tables, sigma).columns) == (laws if name == "whole" else [])
    assert inspect.floors(tables, sigma).shape[1] == 1
    assert len(inspect.residual_tests(tables, sigma).columns) == (2 if name == "whole" else 0)


def test_all_noise_scales_in_one_table(fitted):
    rows = inspect.all_laws(fitted("whole").tables)
    assert list(rows.index) == ["0.05", "0.5", "4.0", "15.0", "total"]
    assert (rows["alpha corrected"] < 0).all()
    assert rows["alpha joint"].between(-0.2, -0.15).all()


def test_profile_rises_to_one_at_the_ends_of_its_interval(fitted):
    tables = fitted("whole").tables
    for sigma in tables.scales:
        rows = tables.at("profile", sigma)
        for law in ("raw", "corrected"):
            curve, fit = rows[rows["law"] == law], tables.fit(sigma, law)
            for end in ("alpha_profile_low", "alpha_profile_high"):
                assert np.interp(fit[end], curve["alpha"], curve["rise"]) == pytest.approx(
                    1, abs=0.02
                )
            assert np.interp(fit["alpha"], curve["alpha"], curve["rise"]) < 0.01
