"""The report's captions and description: whole sentences that docutils does not complain about."""

import json
import re
from importlib import import_module

import pytest
from conftest import ROOT
from docutils.core import publish_parts
from matplotlib import pyplot as plt

from jstar.config import FiguresConfig
from jstar.errors import JstarError
from jstar.figures import FIGURES, VARIANT_FIGURES
from jstar.figures.tables import load_variants
from jstar.records import read_json, write_json
from jstar.report.captions import check_report

REFERENCE = ROOT / "results" / "reference"
CAPTIONS = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}


@pytest.fixture(params=sorted(CAPTIONS))
def page(request, fitted, caption, tmp_path):
    """A caption with the numbers of real tables."""
    name = request.param
    if name == "tune":
        size = {"model": "d1", "rate": 0.01, "rate_low": 0.008, "rate_high": 0.013, "batch": 64,
                "prior_rate": 0.012, "gain_percent": 0.4, "cost_percent": 0.1}  # fmt: skip
        numbers = {"trials": 5, "slope": -0.4, "gain_percent": 0.4, "cost_percent": 0.1,
                   "edge": 1, "sizes": [size, size]}  # fmt: skip
        return caption(name, numbers)
    if name in ("gap_quality", "theory"):
        return caption(name, read_json(REFERENCE / f"sampling/{name}.json")["numbers"])
    if name not in {**FIGURES, **VARIANT_FIGURES}:
        study = {"dataset": {"name": "digits"}, "study": "digits", "ladder": [1, 2]}
        return caption(name, **study) + caption(name, **study, kind="diagnosis")
    if name in FIGURES:
        study = "averages" if name == "averages" else "whole"
        tables, module = fitted(study).tables, FIGURES[name]
    else:
        folder, module = REFERENCE / "variants-fashion", VARIANT_FIGURES[name]
        tables = load_variants(folder, folder / "curve.csv")
    _, numbers = getattr(import_module(module), f"draw_{name}")(tables, FiguresConfig())
    plt.close("all")
    write_json(tmp_path / "numbers.json", numbers)
    return caption(name, read_json(tmp_path / "numbers.json"))


def test_docutils_has_no_complaint(page):
    assert "system-message" not in page
    text = re.sub(r"<[^>]*>", "", page)
    assert not re.search(r"[a-z][.:][A-Z]", text)  # sentences that a lost line break joined


BROKEN = "Exponents:\n- one\n  of two lines\n"  # no blank line before the list


@pytest.mark.parametrize("writer", ["html4", "html5"])
def test_a_broken_caption_is_named(tmp_path, writer):
    def write(description, caption):
        html = [publish_parts(rst, writer=writer)["html_body"] for rst in (description, caption)]
        results = {"figures/gap.png": {"caption": html[1], "name": "gap"}}
        (tmp_path / "report.html").write_text(
            f'<script id="workflow-desc">\nvar workflow_desc = {json.dumps(html[0])};\n</script>\n'
            f'<script id="results">\n var results = {json.dumps(results)};\n</script>'
        )
        check_report(tmp_path / "report.html")

    write("A study.", "A gap.")
    complaint = r"ERROR/3 \(<string>, line 3\) Unexpected indentation\."
    with pytest.raises(JstarError, match=rf"report.html: .* of figures/gap.png: .*{complaint}"):
        write("A study.", BROKEN)
    with pytest.raises(JstarError, match=rf"of the study: .*{complaint}"):
        write(BROKEN, "A gap.")


def test_a_page_that_cannot_be_checked_is_refused(tmp_path):
    (tmp_path / "report.html").write_text("<html>of another version</html>")
    with pytest.raises(JstarError, match="is not a report of Snakemake"):
        check_report(tmp_path / "report.html")
    with pytest.raises(JstarError, match="cannot be read"):
        check_report(tmp_path / "none.html")
