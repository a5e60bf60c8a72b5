"""Every figure from small tables: whole, vector, legible, with its numbers and its caption."""

import json
import re
import shutil
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from known_laws import CHINCHILLA, optimal_size
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from jstar.config import FiguresConfig
from jstar.errors import JstarError
from jstar.figures import averages, cooldown, figures_of, floors, isoflop, scaling, scaling_by_sigma
from jstar.figures.joint import (
    crossings,
    joint_in_numbers,
    joint_law,
    joint_residuals,
    neighbours_alike,
    optimal_line,
    r_squared_of_loss,
)
from jstar.figures.panels import law_in_numbers
from jstar.figures.stage import draw_study_figure
from jstar.figures.style import LAW_COLOR, legend, log_ticks, new_figure, save
from jstar.layout import FIT_TABLES, PAPER_TABLES
from jstar.records import read_json
from jstar.scaling.design import COMPUTE

STUDIES = ("whole", "two sizes")
JOINT = ("floors", "scaling", "scaling_by_sigma", "exponents")  # show the joint law
DRAWN = [(s, f) for s in STUDIES for f in figures_of("scaling", lengths=1, cooldown=False)]
DRAWN += [(s, f) for s in ("no crossing", "no J*") for f in JOINT]
DRAWN += [("by budget", "isoflop")]
DRAWN += [("averages", "averages"), ("whole", "cooldown")]


@pytest.fixture(scope="module", params=DRAWN, ids=lambda p: f"{p[1]}, {p[0]}")
def drawn(request, fitted):
    """A figure as the command draws it; with the Matplotlib figures, which stay open."""
    name, figure = request.param
    study = fitted(name)
    pages = []
    plain, plt.close = plt.close, pages.append
    try:
        layout = study.layout
        draw_study_figure(figure, layout.study, layout.fits, layout.curve, layout.figures)
    finally:
        plt.close = plain
    yield SimpleNamespace(
        study=name, name=figure, pages=pages, stem=study.layout.figures / figure,
        numbers=read_json(study.layout.figures / f"{figure}.json")["numbers"],
    )  # fmt: skip
    for page in pages:
        plt.close(page)


def test_files_are_whole_and_vector(drawn):
    pdf = drawn.stem.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", pdf)) == len(drawn.pages) == 1
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    images = re.findall(rb"/Subtype /Image", pdf)
    assert len(images) <= (drawn.name in ("isoflop", "sensitivity"))  # a colour bar
    with Image.open(drawn.stem.with_suffix(".png")) as png:
        width, height = (pixels / 300 for pixels in png.size)
    assert width in (pytest.approx(3.35, abs=0.01), pytest.approx(6.9, abs=0.01))
    assert height < 9.7
    assert drawn.numbers


def boxes(page, artists):
    """Bounding boxes in inches."""
    renderer = page.canvas.get_renderer()
    return [a.get_window_extent(renderer).transformed(page.dpi_scale_trans.inverted())
            for a in artists]  # fmt: skip


def overlap(a, b, slack=0.01):
    return (min(a.x1, b.x1) - max(a.x0, b.x0) > slack
            and min(a.y1, b.y1) - max(a.y0, b.y0) > slack)  # fmt: skip


def test_nothing_is_cut_off_and_nothing_overlaps(drawn):
    for page in drawn.pages:
        page.canvas.draw()
        width, height = page.get_size_inches()
        whole = page.get_tightbbox()
        assert whole.x0 > -0.02
        assert whole.y0 > -0.02
        assert whole.x1 < width + 0.02
        assert whole.y1 < height + 0.02
        panels = [a for a in page.axes if a.get_visible()]
        titles = boxes(page, [a._left_title for a in panels if a.get_title(loc="left")])
        for a, b in combinations(titles, 2):
            assert not overlap(a, b)
        for one, other in combinations(boxes(page, page.legends), 2):
            assert not overlap(one, other)
        for above in boxes(page, page.legends):
            assert above.y0 > max(box.y1 for box in boxes(page, panels)) - 0.01  # one place
            assert not any(overlap(above, box) for box in [*boxes(page, panels), *titles])
        for panel in panels:
            for axis in (panel.xaxis, panel.yaxis):
                labels = [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
                low, high = sorted(axis.get_view_interval())
                shown = [t for t in labels
                         if low <= (t.get_position()[axis is panel.yaxis]) <= high]  # fmt: skip
                for a, b in combinations(boxes(page, shown), 2):
                    assert not overlap(a, b), [t.get_text() for t in shown]


def test_captions_carry_numbers(drawn, caption):
    page = caption(drawn.name, drawn.numbers)
    assert "system-message" not in page
    assert not re.search(r"\b(nan|inf|None)\b", page)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    if drawn.name in ("scaling", "scaling_by_sigma", "exponents", "sensitivity", "isoflop"):
        quoted = bool(
            re.search(r"-0\.1\d+ \[-0\.[12]\d+, -0\.1\d+\]", page.replace("\N{MINUS SIGN}", "-"))
        )
        assert quoted == (drawn.study != "two sizes")


def test_a_caption_says_what_was_found(fitted, caption):
    """The floor above J*, the one that is J*, and that nothing crosses."""
    study, told = fitted("no crossing"), {}
    layout = study.layout
    for name in JOINT:
        file = layout.figures / f"{name}.json"
        if not file.exists():  # drawn above, unless this test runs alone
            draw_study_figure(name, layout.study, layout.fits, layout.curve, layout.figures)
        numbers = read_json(file)["numbers"]
        told[name] = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", caption(name, numbers)))
    assert "ask for more than J* at 1 (part" in told["floors"]
    assert "agree with J* at 1" in told["floors"]
    assert re.search(r"above 1|corrected 1, above 1", told["exponents"])
    rate = study.tables.at("verdicts", 4.0)["rate_corrected_if_corrected"].iloc[0]
    assert re.search(rf"4 corrected -0\.17.*? {rate:.0%}", told["exponents"])
    for name in ("scaling", "scaling_by_sigma"):
        assert "no crossing" in told[name]
        assert "above" in told[name]
    agreement = read_json(study.layout.fits / "fits.json")["agreement"].values()
    assert all(sentence in told["scaling"] for sentence in agreement)


def test_sizes_chosen_by_budget_show_their_budgets_and_minima(fitted):
    """A star where the law has its optimum, a parabola through every size, a label a budget."""
    figure, numbers = isoflop.draw_isoflop(fitted("by budget").tables, FiguresConfig(sigmas=2))
    figure.canvas.draw()
    budgets = np.geomspace(6e18, 3e21, 6)
    for panel in figure.axes[:3]:
        stars, dots = ([line.get_xdata() for line in panel.lines
                        if line.get_marker() == mark and line.get_ls() == "None"]
                       for mark in "*o")  # fmt: skip
        assert np.concatenate(stars) == pytest.approx(optimal_size(CHINCHILLA, budgets), rel=0.1)
        assert [len(x) for x in dots] == [7] * 6 + [0]  # no minimum is at the edge
        assert sum(len(line.get_xdata()) == 40 for line in panel.lines) == 6
    (bar,) = (axes for axes in figure.axes if axes.get_ylabel() == "$F$ (FLOPs)")
    labels = [re.sub(r"\\times10\^\{(\d+)\}", r"e\1", t.get_text().strip("$"))
              for t in bar.get_yticklabels()]  # fmt: skip
    assert [float(label) for label in labels] == pytest.approx(budgets, rel=0.03)
    assert numbers["by_budget"]
    assert [law["inside"] for law in numbers["laws"]] == [6] * 3
    plt.close(figure)


def test_the_noise_scales_drawn_show_every_verdict(fitted):
    tables = fitted("whole").tables
    first, second, third, last = (float(sigma) for sigma in tables.sigmas)
    for words, count, shown in [
        (("above", "above", "undecided", "corrected"), 1, [last]),
        (("above", "above", "undecided", "corrected"), 2, [second, last]),
        (("above", "above", "undecided", "corrected"), 3, [first, third, last]),
        (("undecided", "raw", "undecided", "undecided"), 2, [second, third]),
        (("undecided",) * 4, 2, [second, third]),  # spread
        (("undecided",) * 4, 6, [first, second, third, last]),
    ]:
        verdict = dict(zip([*tables.sigmas, "total"], [*words, "undecided"], strict=True))
        keys = [k if k == "total" else float(k) for k in tables.verdicts["sigma"]]
        said = tables.verdicts.assign(verdict=[verdict[key] for key in keys])
        chosen = scaling.chosen_scales(replace(tables, verdicts=said), count)
        assert chosen == [*shown, "total"], (words, count)


def test_each_row_of_a_legend_is_as_wide_as_its_own_entries():
    """Seven sizes on one line, however wide the laws below; too many are wrapped evenly."""
    figure, _ = new_figure(1, 2, 6.9, 3)
    sizes = [Line2D([], [], label=f"{k}k") for k in range(7)]
    heading = Line2D([], [], ls="", label="parameters")
    wide = [Line2D([], [], label=f"a law with a long name, {k}") for k in range(6)]
    legend(figure, [heading, *sizes], wide)
    figure.canvas.draw()
    page = [[text.get_text() for text in one.get_texts()] for one in figure.legends]
    assert page[0] == ["parameters", *(f"{k}k" for k in range(7))]
    rows = [{round(text.get_window_extent().y0) for text in one.get_texts()}
            for one in figure.legends]  # fmt: skip
    assert [len(heights) for heights in rows] == [1, 2]
    first, second = boxes(figure, figure.legends)
    assert first.y0 >= second.y1 - 0.01
    assert second.y0 > max(box.y1 for box in boxes(figure, figure.axes)) - 0.01
    assert max(first.x1, second.x1) < 6.9
    plt.close(figure)


def test_the_best_average_is_marked_and_told(fitted, tmp_path):
    study = fitted("averages")
    figure, numbers = averages.draw_averages(study.tables, FiguresConfig())
    assert (numbers["of"], numbers["fitted"], numbers["at_end"]) == ("gap", 0.1, 5)
    assert numbers["cases"] == 2 * 5  # sizes, four noise scales and the total
    gain = 0.1 * np.log(0.2 / 0.1) ** 2
    assert numbers["most"]["gain"] == pytest.approx(100 * gain / (1 + gain))
    for panel in figure.axes:
        low, end = [line for line in panel.lines if line.get_linestyle() == "None"]
        assert (*low.get_xdata(), *end.get_xdata()) == (0.12, 0.2)
        assert end.get_markerfacecolor() == "white" != low.get_markerfacecolor()
    plt.close(figure)
    layout = fitted("two sizes").layout  # only one length was measured
    assert "averages" not in figures_of("scaling", len(layout.study.lengths), False)
    with pytest.raises(JstarError, match="no two EMA lengths"):
        draw_study_figure("averages", layout.study, layout.fits, layout.curve, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_change_of_a_cooldown_is_drawn_and_told(fitted, tmp_path):
    study = fitted("whole")
    figure, numbers = cooldown.draw_cooldown(study.tables, FiguresConfig())
    assert (numbers["of"], numbers["ema"], numbers["seeds"]) == ("gap", 0.1, [2, 2])
    assert numbers["lower"] == numbers["cases"] == 5 * 5  # sizes, four noise scales and the total
    for row in numbers["scales"]:
        assert (row["low"], row["high"]) == pytest.approx((-5, -5))
        # Every gap is lower by the same factor: the exponent stays.
        assert row["cooldown"]["alpha"] == pytest.approx(row["average"]["alpha"], abs=1e-3)
    change, growth, exponent = figure.axes
    lines = [line for line in change.lines if len(line.get_xdata()) == 4 and line.get_lw() == 0.9]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([-5] * 4)] * 5
    assert growth.get_xlim()[1] > 3e6
    low, high = exponent.get_ylim()
    assert low < min(row["average"]["alpha"] for row in numbers["scales"]) < 0 < high
    plt.close(figure)
    layout = fitted("two sizes").layout  # it has none
    assert "cooldown" not in figures_of("scaling", 1, layout.study.train.cooldown is not None)
    with pytest.raises(JstarError, match="no ends of cooldowns"):
        draw_study_figure("cooldown", layout.study, layout.fits, layout.curve, tmp_path / "out")
    few = replace(study.tables, cooldown_laws=study.tables.cooldown_laws.assign(status="2 sizes"))
    figure, _ = cooldown.draw_cooldown(few, FiguresConfig())
    assert "no joint law" in figure.axes[-1].texts[0].get_text()
    plt.close(figure)


def test_floors_are_measured_in_smallest_gaps(fitted):
    numbers = floors.draw_floors(fitted("no crossing").tables, FiguresConfig())[1]
    plt.close("all")
    above, same = numbers["rows"][:2]
    assert above["says"] == "asks for more than J*"
    assert above["floor"] == pytest.approx(1.3 * above["optimal"], rel=0.1)
    assert same["says"] == "agrees"
    off = abs(same["floor"] - same["optimal"])
    assert numbers["largest"] == pytest.approx(off / same["optimal"])
    assert numbers["largest_in_gaps"] == pytest.approx(off / same["gap"])
    assert numbers["says"] == {"asks for more than J*": 1, "agrees": 1}


def test_without_optimal_loss_no_floor_is_judged(fitted):
    figure, numbers = floors.draw_floors(fitted("no J*").tables, FiguresConfig())
    plt.close("all")
    assert figure.axes[0].get_title(loc="left").startswith("Fitted floors; no")
    assert numbers["says"] == {"cannot be told": 2}
    assert numbers["largest"] is None


def test_the_optimal_line_is_the_lowest_loss_at_its_compute(fitted):
    """Against a search over all splits of the compute; its slope is alpha."""
    tables = fitted("no crossing").tables
    for sigma in tables.sigmas:
        law = joint_law(tables, sigma)
        line = optimal_line(tables, sigma, law)
        n = np.geomspace(1e2, 1e12, 20001)
        for flops, loss in zip(line["flops"][::20], line["loss"][::20], strict=True):
            d = flops / (COMPUTE * n)
            every = law["E"] + law["A"] * (n / law["N0"]) ** -law["a"]
            every += law["B"] * (d / law["D0"]) ** -law["b"]
            assert loss == pytest.approx(every.min(), rel=1e-6)
        slope = np.polyfit(np.log(line["flops"]), np.log(line["loss"] - law["E"]), 1)[0]
        assert slope == pytest.approx(law["alpha"], rel=1e-6)
        assert law["floor"] == {0.5: "free", 4.0: "optimal"}[sigma]


def test_residuals_are_those_of_the_joint_law(fitted):
    """They scatter by the noise that was simulated: 1 % of the gap a run."""
    tables = fitted("no crossing").tables
    for sigma in tables.sigmas:
        law = joint_law(tables, sigma)
        rows = joint_residuals(tables, sigma, law)
        assert len(rows) == len(tables.at("frontier", sigma)) == 60
        noise = 0.01 * (rows["loss"] - law["E"]) / rows["loss"]
        assert 0.3 < (rows["residual"] / noise).std() < 2
        r2 = joint_in_numbers(tables, sigma)["r2_gap"]
        gap = rows["law_loss"] - (rows["loss"] - rows["gap"])
        assert r2 == pytest.approx(r_squared_of_loss(rows["gap"], gap))
        assert 0.99 < r2 < 1


def test_exponents_at_a_bound_are_no_numbers(fitted):
    tables = fitted("no crossing").tables
    bound = replace(tables, parametric=tables.parametric.assign(status="at bound"))
    numbers = joint_in_numbers(bound, 4.0)
    assert np.isnan([numbers["alpha"], numbers["size_exponent_high"]]).all()
    assert np.isfinite([numbers["E"], numbers["r2"]]).all()
    figure, _ = scaling.draw_scaling(bound, FiguresConfig(sigmas=1))
    assert len(figure.axes[0].lines) == len(tables.models) + 1  # the runs and J*
    plt.close(figure)


def test_crossings_lie_on_the_lowest_curve(fitted):
    tables = fitted("whole").tables
    for sigma in tables.scales:
        found = crossings(tables, sigma, "loss")
        assert len(found) == tables.at("verdicts", sigma)["crossings"].iloc[0] > 1
        rows = tables.at("frontier", sigma)
        for flops, loss in zip(found["flops"], found["loss"], strict=True):
            near = rows[np.abs(np.log(rows["flops"] / flops)) < 0.4]
            assert loss == pytest.approx(near["loss"].min(), rel=0.1)
            assert len(set(near["params"])) > 1
    assert crossings(fitted("no crossing").tables, 4.0, "loss").empty


def test_loss_panels_show_what_is_fitted(fitted):
    study = fitted("whole")
    tables = study.tables
    figure, _ = scaling.draw_scaling(tables, study.layout.study.figures)
    panel = figure.axes[1]  # loss at the larger of the two noise scales
    sigma = float(re.search(r"[\d.]+", panel.get_title(loc="left"))[0])
    run = tables.at("losses", sigma)
    run = run[run["run"] == "n0-s0"].sort_values("flops")
    line = panel.lines[0].get_ydata()
    assert line == pytest.approx(run["loss_fit"].to_numpy(), rel=1e-7)
    assert np.abs(np.log(line / run["loss"].to_numpy())).max() > 1e-4  # an error all models share
    plt.close(figure)


def test_neighbours_along_a_run_are_alike_where_its_curve_bends():
    """Whatever a run's own mean is; single snapshots have no neighbours."""
    rng = np.random.default_rng(0)
    flops = np.tile(np.geomspace(1, 1e3, 60), 2)
    rows = pd.DataFrame({"run": np.repeat(["a", "b"], 60), "flops": flops})
    level = np.repeat([5.0, -5.0], 60)
    bent = rows.assign(residual=level + np.log(flops) ** 2)
    assert neighbours_alike(bent.sample(frac=1, random_state=0)) > 0.95
    assert abs(neighbours_alike(rows.assign(residual=level + rng.normal(size=120)))) < 0.25
    assert np.isnan(neighbours_alike(bent.groupby("run").head(1)))


def test_a_band_stands_where_its_law_is_straight_and_the_optimum_in_every_loss(fitted):
    tables = fitted("whole").tables
    figure, numbers = scaling.draw_scaling(tables, FiguresConfig(sigmas=4))
    panels = np.array(figure.axes).reshape(3, -1)
    for row, law in zip(panels[:2], ("raw", "corrected"), strict=True):
        for panel in row:
            bands = [c.get_facecolor()[0][:3] for c in panel.collections]
            assert bands == [pytest.approx(to_rgb(LAW_COLOR[law]))]
    for panel, sigma in zip(panels[0], tables.scales, strict=True):
        optimal = tables.at("verdicts", sigma)["optimal"].iloc[0]
        lines = [line for line in panel.lines if list(line.get_ydata()) == [optimal] * 2]
        arrows = [text for text in panel.texts if "downarrow" in text.get_text()]
        assert len(lines) + len(arrows) == 1
        assert not lines or panel.get_ylim()[0] < optimal
    assert all("r_1" in panel.texts[-1].get_text() for panel in panels[2])
    assert numbers["waves"] == 0.5
    plt.close(figure)


def test_an_exponent_that_may_not_be_quoted_is_no_number(fitted):
    numbers = law_in_numbers(fitted("two sizes").tables, "total")
    assert np.isnan(numbers["corrected"]["alpha"])
    assert numbers["corrected"]["status"] == "too few clusters"
    assert law_in_numbers(fitted("whole").tables, "total")["corrected"]["alpha"] < 0


def test_many_noise_scales_make_several_pages(fitted, monkeypatch, tmp_path):
    study = fitted("two sizes")
    monkeypatch.setattr(scaling_by_sigma, "ACROSS", 2)
    monkeypatch.setattr(scaling_by_sigma, "DOWN", 1)
    pages, numbers = scaling_by_sigma.draw_scaling_by_sigma(
        study.tables, study.layout.study.figures
    )
    save(pages, tmp_path / "x")
    assert len(pages) == 3  # four noise scales and the total, two on a page
    assert len(numbers["laws"]) == 5
    assert len(re.findall(rb"/Type /Page\b", (tmp_path / "x.pdf").read_bytes())) == 3
    with Image.open(tmp_path / "x.png") as png:
        assert png.height == pytest.approx(300 * sum(p.get_size_inches()[1] for p in pages), abs=3)


def test_the_same_tables_give_the_same_bytes(fitted, tmp_path):
    layout = fitted("whole").layout
    for name in ("a", "b"):
        draw_study_figure("exponents", layout.study, layout.fits, layout.curve, tmp_path / name)
    for suffix in ("pdf", "png", "json"):
        first, second = ((tmp_path / n / f"exponents.{suffix}").read_bytes() for n in ("a", "b"))
        assert first == second


def test_the_workflow_declares_every_table(fitted):
    fits = fitted("whole").layout.fits
    assert {p.stem for p in fits.glob("*.csv")} == set(FIT_TABLES)
    expected = {f"{name}.{suffix}" for name in PAPER_TABLES for suffix in ("md", "tex")}
    assert {p.name for p in (fits / "tables").iterdir()} == expected


@pytest.mark.parametrize(
    ("table", "column"),
    [("fits", "alpha_low"), ("frontier", "gap"), ("sensitivity", "choice"), ("isoflop", "value")],
)
def test_a_missing_column_is_one_sentence(fitted, tmp_path, table, column):
    layout = fitted("whole").layout
    shutil.copytree(layout.fits, tmp_path / "fits")
    path = tmp_path / "fits" / f"{table}.csv"
    for record in (path.with_suffix(".json"), path.with_name("fits.json")):  # of another program's
        facts = json.loads(record.read_text())
        record.write_text(json.dumps({k: v for k, v in facts.items() if k not in ("made", "seal")}))
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(JstarError, match=f"{table}.csv: the column '{column}' is missing"):
        draw_study_figure("scaling", layout.study, path.parent, layout.curve, tmp_path / "out")
    path.unlink()
    with pytest.raises(JstarError, match=f"{table}.csv: cannot be read"):
        draw_study_figure("scaling", layout.study, path.parent, layout.curve, tmp_path / "out")
    with pytest.raises(JstarError, match="'skaling' is unknown.*did you mean 'scaling'"):
        draw_study_figure("skaling", layout.study, layout.fits, layout.curve, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("low", "high"), [(0.24, 0.26), (0.1, 0.5), (0.002, 0.05), (1e-6, 3e-2), (0.9, 1.1)]
)
def test_log_axes_have_a_few_short_labels(low, high):
    figure, panel = plt.subplots(figsize=(2, 2))
    log_ticks(panel, low, high)
    figure.canvas.draw()
    texts = [t.get_text() for t in panel.get_yticklabels()]
    assert 2 <= len(texts) <= 6
    assert max(map(len, texts)) <= 20
    plt.close(figure)


def test_decades_of_one_axis_are_all_plain_or_all_powers():
    figure, (plain, powers) = plt.subplots(1, 2)
    log_ticks(plain, 2e-3, 30)
    log_ticks(powers, 2e-5, 30)
    figure.canvas.draw()
    assert [t.get_text() for t in plain.get_yticklabels()] == ["0.01", "0.1", "1", "10"]
    assert all(t.get_text().startswith("$10^") for t in powers.get_yticklabels())
    assert len(plain.yaxis.get_minorticklocs()) > 20  # between them: ticks without labels
    plt.close(figure)
