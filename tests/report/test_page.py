"""The page: self-contained, true to its tables, and alive in a real browser at two widths."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jstar.errors import JstarError
from jstar.figures.stage import draw_study_figure
from jstar.report.finding import checks, finding, total
from jstar.report.page import Sources, write_page, write_study_report, write_tables_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
BIGGEST = 8e6  # bytes


@pytest.fixture(scope="module")
def page(fitted):
    """The page of a study with crossings, with its main figure."""
    study = fitted("whole")
    layout = study.layout
    draw_study_figure("scaling", layout.study, layout.fits, layout.curve, layout.figures)
    write_study_report(layout)
    return layout.report


def test_the_page_needs_no_network_and_is_small(page):
    text = page.read_text()
    assert page.stat().st_size < BIGGEST
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    for address in re.findall(r'(?:src|href)="([^"]*)"', markup):
        assert address.startswith(("#", "data:")), address
    assert "url(" not in markup
    assert "@import" not in markup
    assert markup.count("<img") == 1  # the other figures were not drawn


def test_the_page_says_what_the_tables_say(page, fitted):
    tables = fitted("whole").tables
    text = html.unescape(page.read_text())
    assert finding(tables) in text
    assert total(tables) in text
    for sigma in tables.sigmas:
        fit = tables.fit(float(sigma), "corrected")
        row = text[text.index(f'<td data-sort="{sigma}">') :].partition("</tr>")[0]
        assert f"{fit['alpha']:.3f}"[:5].replace("-", "\N{MINUS SIGN}") in row
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["scales"]) == len(tables.scales) == 5
    first = data["scales"][0]["charts"]
    run = next(t for t in first["loss"]["data"] if t["name"].endswith("n0-s0"))
    rows = tables.at("frontier", tables.sigmas[0])
    rows = rows[rows["run"] == "n0-s0"].sort_values("flops")
    assert run["y"] == pytest.approx(rows["loss"].to_list(), rel=1e-4)
    assert {t.get("meta") for t in first["gap"]["data"]} >= {"raw", "corrected", "joint"}


def test_the_finding_counts_verdicts_and_gives_their_error_rate(fitted):
    tables = fitted("no crossing").tables
    verdicts = tables.verdicts.assign(
        verdict=["corrected", "undecided", "above"],  # the last is the total
        rate_corrected_if_raw=[0.021, 0.5, 0.9],
    )
    said = finding(replace(tables, verdicts=verdicts))
    assert said.startswith("At 1 of 2 noise scales the losses need a floor and J* is not excluded")
    assert "at 1 they leave open" in said
    assert "wrongly in at most 2 %." in said  # that of an undecided row counts for nothing
    low, high = tables.expected.set_index(["world", "verdict"]).loc[
        ("optimal", "corrected"), ["low", "high"]
    ]
    assert said.endswith(f"80 % of such studies would call {low} to {high} of them corrected.")
    never = verdicts.assign(rate_corrected_if_raw=0.0)
    assert "wrongly in under 1 %." in finding(replace(tables, verdicts=never))
    undecided = verdicts.assign(verdict="undecided", rate_corrected_if_corrected=[0.12, 0.8, 1])
    said = finding(replace(tables, verdicts=undecided))
    assert said.startswith("At 2 of 2 noise scales the losses leave open")
    assert "in 12 % to 80 % of cases" in said
    assert "is not known without J*" in finding(fitted("no J*").tables)


def test_what_is_not_known_neither_holds_nor_fails(fitted):
    known = {check.question: check.good for check in checks(fitted("two sizes").tables)}
    assert [good for question, good in known.items() if "residuals" in question] == [None]
    assert [good for question, good in known.items() if "wrong" in question] == [None]


def test_a_check_fails_where_it_should(fitted):
    tables = fitted("whole").tables

    def good(changed):
        return {check.question.split("?")[0]: check.good for check in checks(changed)}

    before = good(tables)
    assert before["Do sizes cross, so that there is an envelope"]
    assert before["Does the integral of J* come to the entropy of the data (I-MMSE)"]
    broken = replace(
        tables,
        verdicts=tables.verdicts.assign(frontier="no crossing", heldout_says="miss"),
        facts={**tables.facts, "closure": 1.1 * tables.facts["log_count"]},
        approaches=tables.approaches.assign(status="at bound"),
    )
    after = good(broken)
    for question in ("Do sizes cross, so that there is an envelope",
                     "Does the integral of J* come to the entropy of the data (I-MMSE)",
                     "Can the joint law's exponent be quoted",
                     "Was the largest compute predicted from the rest"):  # fmt: skip
        assert not after[question], question


@pytest.mark.parametrize("name", ["no J*", "two sizes", "by budget"])
def test_tables_without_a_study_have_a_page(fitted, name, tmp_path):
    layout = fitted(name).layout
    curve = None if name == "no J*" else layout.curve
    write_tables_report(layout.fits, curve, None, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert '<h2 id="checks">' in text
    assert not re.search(r">\s*(nan|None)\s*<", text)
    with pytest.raises(JstarError, match="cannot be read"):
        write_tables_report(tmp_path / "none", None, None, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_data_cost_and_samples_are_shown_where_they_are_known(tmp_path):
    """Of a study of variants, say, which has no laws."""
    card = {"name": "digits", "source": "digits", "count": 1797, "shape": [1, 8, 8], "license": ""}
    run = {"model": "d1", "seed": 0, "params": 1644, "images": 90_000, "flops": 9e10, "seconds": 90,
           "images_per_second": 1000, "mfu": 0.1, "device": "cpu", "threads": 1}  # fmt: skip
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "run.json").write_text(json.dumps(run))
    Image.new("RGB", (40, 20)).save(tmp_path / "samples.png")
    Image.new("RGB", (2100, 600)).save(tmp_path / "variants.png")
    sources = Sources("Variants <of> digits", "x0 is lowest.", main=tmp_path / "variants.png",
                      pictures=[tmp_path / "none.png"], card=tmp_path / "card.json",
                      sheet=tmp_path / "samples.png",
                      runs=[tmp_path / "run.json", tmp_path / "none.json"])  # fmt: skip
    write_page(tmp_path / "page.html", sources)
    text = (tmp_path / "page.html").read_text()
    assert "Variants &lt;of&gt; digits" in text
    assert "x0 is lowest." in text
    assert text.count("<img") == 2
    assert "<td>1797</td>" in text
    assert ">license<" not in text  # not said
    assert re.search(r"1 runs, 9e\+10 FLOPs of training in\s+0\.025 hours on cpu", text)
    assert "<script" not in text  # nothing moves
    (tmp_path / "run.json").write_text(json.dumps({"model": "d1"}))
    with pytest.raises(JstarError, match="run.json: the key 'seed' is missing"):
        write_page(tmp_path / "other.html", sources)
    assert not (tmp_path / "other.html").exists()


@pytest.mark.parametrize("given", ["--fits", "--out", "--optimal", "--figures"])
def test_the_command_refuses_half_a_request(jstar, tmp_path, given):
    status, _, error = jstar("report", given, tmp_path / "x")
    assert status == 2
    assert "--fits and --out must be given together" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# What a reader does, and what is on the screen then. Runs as the page's last script.
DRIVER = """
<script>
window.faults = [];
window.addEventListener("error", event => window.faults.push(event.message));
console.error = console.warn = (...words) => window.faults.push(words.join(" "));
</script>
"""
READER = """
<script>
setTimeout(() => {
  const byId = id => document.getElementById(id);
  const ys = name => JSON.stringify(byId("plot-" + name).data[0].y);
  const names = ["exponents", "floors", "loss", "gap", "residuals", "profile"];
  const hidden = () => byId("plot-exponents").data.filter(t => t.visible === false).length;
  const column = n => [...byId("laws").tBodies[0].rows].map(row => row.cells[n].textContent.trim());
  const told = {faults: window.faults, width: document.documentElement.clientWidth,
                scroll: document.documentElement.scrollWidth};
  told.drawn = names.filter(name => byId("plot-" + name).querySelector("svg"));
  told.wide = names.filter(name => byId("plot-" + name).getBoundingClientRect().right
                                   > document.documentElement.clientWidth + 1);
  const slider = byId("sigma"), label = byId("sigma-label").textContent, before = ys("loss");
  slider.value = slider.value === "0" ? 1 : 0;
  slider.dispatchEvent(new Event("input"));
  told.slider = [label !== byId("sigma-label").textContent, before !== ys("loss")];
  const box = document.querySelector("input[data-law=raw]"), hid = hidden();
  box.click();
  told.toggle = [hid, hidden(), document.querySelector("td[data-law=raw]").hidden];
  byId("laws").tHead.querySelector("button").click();
  told.sigmas = column(0);
  byId("laws").tBodies[0].rows[0].cells[0].click();
  told.row = byId("sigma-label").textContent;
  document.title = "told" + JSON.stringify(told) + "told";
}, 500);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_an_error(page, fitted, tmp_path, width):
    text = page.read_text().replace("<head>", f"<head>{DRIVER}")
    text = text.replace("</body>", f"{READER}</body>")
    (tmp_path / "page.html").write_text(text)
    # A window is never narrower than 500 pixels; a frame is.
    (tmp_path / "frame.html").write_text(
        f'<iframe id="f" src="page.html" style="border:0;width:{width}px;height:844px"></iframe>'
        '<script>setInterval(() => { document.body.dataset.told = '
        'document.getElementById("f").contentDocument.title; }, 100);</script>'
    )  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900",
         "--virtual-time-budget=8000", "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = re.search(r"told(\{.*\})told", html.unescape(done.stdout))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    told = json.loads(found[1])
    assert told["faults"] == []
    assert width - 20 <= told["width"] <= width  # a scroll bar takes some
    assert told["scroll"] == told["width"]
    assert told["drawn"] == ["exponents", "floors", "loss", "gap", "residuals", "profile"]
    assert told["wide"] == []
    assert told["slider"] == [True, True]
    assert told["toggle"] == [0, 1, True]
    sigmas = [float(s.replace("total", "inf")) for s in told["sigmas"]]
    assert sigmas == sorted(sigmas, reverse=True)  # the second click on a sorted column
    assert np.isinf(sigmas[0])
    assert told["row"].startswith("total loss")
