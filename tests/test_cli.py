"""The command line: its tables, its one-sentence errors, its exit status."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from jstar.figures import figures_of
from jstar.records import read_json
from jstar.scaling.simulate import TrueStudy, simulate_study


@pytest.fixture
def tables(tmp_path):
    """Tables as anybody's training code may write them."""
    truth = TrueStudy(sizes=(1e5, 1e7, 4), images=(1e4, 3e6, 8), sigmas=(0.5, 5.0))
    losses, curve = simulate_study(truth, seed=0)
    losses.to_csv(tmp_path / "losses.csv", index=False)
    curve.to_csv(tmp_path / "curve.csv", index=False)
    return tmp_path


def foreign(tables, *more):
    return ["fit", "--losses", tables / "losses.csv", "--optimal", tables / "curve.csv",
            "--out", tables / "out", *more]  # fmt: skip


def test_fit_of_foreign_tables(jstar, tables):
    status, out, _ = jstar(*foreign(tables, "--process", "edm", "--confidence", 0.9,
                                    "--bootstrap", 150, "--min-images", 20_000))  # fmt: skip
    assert status == 0
    assert re.match(r"total: (corrected|above|raw|undecided); ", out)
    assert re.search(r"^2 noise scales: \d \w+", out, re.M)
    assert re.search(r"measured / predicted [\d.]+ in \[[\d.]+, [\d.]+\]: \w+", out)
    assert len(out.splitlines()) <= 13
    facts = read_json(tables / "out/fits.json")
    assert (facts["process"], facts["confidence"], facts["bootstrap"]) == ("edm", 0.9, 150)
    frontier = pd.read_csv(tables / "out/frontier.csv")
    assert set(frontier["sigma"]) == {"0.5", "5.0", "total"}
    losses = pd.read_csv(tables / "losses.csv")
    kept = losses[losses["images"] >= 20_000]
    assert frontier["flops"].min() == pytest.approx(kept["flops"].min())


def test_figures_of_the_barest_foreign_tables(jstar, tables):
    """No split, no EMA, no gap, no error of J*, no study file: all figures come nonetheless."""
    losses = pd.read_csv(tables / "losses.csv")
    losses[["run", "params", "flops", "sigma", "loss"]].to_csv(tables / "losses.csv", index=False)
    curve = pd.read_csv(tables / "curve.csv")
    curve[["sigma", "loss"]].to_csv(tables / "curve.csv", index=False)
    assert jstar(*foreign(tables, "--bootstrap", 100))[0] == 0
    status, _, err = jstar("figures", "--fits", tables / "out", "--optimal", tables / "curve.csv",
                           "--out", tables / "drawn")  # fmt: skip
    assert status == 0, err
    assert {path.stem for path in (tables / "drawn").glob("*.png")} == set(
        figures_of("scaling", lengths=1, cooldown=False)
    )


def test_optimal_loss_between_the_noise_scales_of_its_table(jstar, tables):
    """J* of 5 from 4 and 6: said, with an error that the fits know of."""
    curve = pd.read_csv(tables / "curve.csv").set_index("sigma")["loss"]
    rows = {0.5: curve[0.5], 4.0: 0.97 * curve[5.0], 6.0: 1.02 * curve[5.0]}
    frame = pd.DataFrame({"sigma": list(rows), "loss": list(rows.values())})
    frame.to_csv(tables / "curve.csv", index=False)
    status, out, err = jstar(*foreign(tables, "--bootstrap", 100))
    assert status == 0, err
    assert "J* is interpolated at 1 of 2 noise scales, with an error of its own" in out
    assert read_json(tables / "out/fits.json")["optimal_interpolated"] == [5.0]
    found = pd.read_csv(tables / "out/verdicts.csv").set_index("sigma")
    assert found.loc[0.5, ["optimal", "optimal_se"]].tolist() == pytest.approx([curve[0.5], 0])
    assert found.loc[5.0, "optimal"] == pytest.approx(curve[5.0], rel=0.01)
    assert 0 < found.loc[5.0, "optimal_se"] < 0.01 * curve[5.0]
    status, _, err = jstar("fit", "--losses", tables / "losses.csv", "--out", tables / "out",
                           "--bootstrap", 5)  # fmt: skip
    assert "bootstrap = 5" in err  # its own folder may be written again


def test_fit_without_a_process_has_no_total(jstar, tables):
    status, out, _ = jstar(*foreign(tables, "--bootstrap", 100))
    assert status == 0
    assert "total" not in out
    assert "total" not in set(pd.read_csv(tables / "out/fits.csv")["sigma"].astype(str))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--process", "edn"], ["'edn'", "did you mean 'edm'"]),
        (["--confidence", 95], ["confidence = 95.0", "less than 1"]),
        (["--bootstrap", 5], ["bootstrap = 5", "100"]),
        (["--min-images", -1], ["min_images = -1", "0"]),
        (["--min-images", 10**9], ["no row is left", "images >= 1000000000"]),
        (["--config", "x.yaml"], ["--config", "--losses"]),
    ],
)
def test_wrong_options_of_fit_are_one_sentence(jstar, tables, more, words):
    status, out, err = jstar(*foreign(tables, *more))
    assert (status, out) == (2, "")
    assert err.startswith("jstar: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (tables / "out").exists()


def test_min_images_needs_the_column(jstar, tables):
    path = tables / "losses.csv"
    pd.read_csv(path).drop(columns="images").to_csv(path, index=False)
    status, _, err = jstar(*foreign(tables, "--min-images", 100))
    assert (status, err) == (2, "jstar: losses: min_images = 100 needs the column 'images'\n")


def test_fit_needs_tables_or_a_study(jstar):
    status, _, err = jstar("fit")
    assert status == 2
    assert "--config" in err
    assert "--losses" in err


def power(*more):
    return ["power", "--studies", 4, *more]


def test_power_of_the_default_design(jstar):
    status, out, _ = jstar(*power("--run-noise", 0.01, "--snapshot-noise", 0.003))
    assert status == 0
    law, crossings, _, note, _, _, row = out.splitlines()
    assert "a = 0.35, b = 0.35" in law
    assert "5 crossings" in crossings
    rates = r" +(\d+)% ± \d+%" * 3
    found = re.fullmatch(rf"this design +5 of 5 +-0\.175 ± 0\.00\d+{rates}", row)
    corrected, raw, wrong = (int(value) for value in found.groups())
    assert min(corrected, raw) >= 75 > 25 >= wrong
    assert note.startswith("Of 4 simulated studies with J* and 4 without a floor")


def test_power_tells_exponents_apart_with_more_seeds(jstar):
    status, out, err = jstar(
        *power("--alpha", -0.1, "--against", -0.112, "--seeds", 1, "--seeds", 8)
    )
    assert status == 0
    *_, one, eight, answer = out.splitlines()
    assert (one.split()[1], eight.split()[1]) == ("6", "48")
    weak, strong = (row.rsplit("   ", 1)[1] for row in (one, eight))
    assert int(weak.split("%")[0]) < 80 <= int(strong.split("%")[0])
    assert answer == f"8 seeds a size tell -0.1 from -0.112 in {strong} of 4 simulated studies"
    assert err.count("took") == 3  # the design's own studies are simulated once
    _, out, _ = jstar(*power("--alpha", -0.1, "--against", -0.101, "--seeds", 1))
    assert "none of these reaches a power of 0.8" in out


def test_power_of_one_point_a_run(jstar):
    budgets = [part for flops in (1e13, 1e14, 1e15, 1e16) for part in ("--budget", flops)]
    status, out, _ = jstar(*power(*budgets))
    assert status == 0
    assert "alpha" in out
    assert re.search(r"this design +\d of 5 +-0\.175 ± ", out)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--alpha", 0.1], ["--alpha = 0.1", "below 0"]),
        (["--alpha", -0.1, "--against", -0.1], ["both exponents are -0.1"]),
        (["--alpha", -0.1, "--size-exponent", 0.3], ["--alpha states the exponents"]),
        (["--seeds", 0], ["--seeds = 0", "at least 1"]),
        (["--sizes", 1], ["1 sizes", "at least 2"]),
        (["--snapshots", 0], ["0 snapshots", "at least 1"]),
        (["--images", 1e6, "--images", 2e6], ["--images", "6 times"]),
        (["--images", 1e6, "--flops", 2e6], ["--images and --flops exclude"]),
        (["--snapshot-noise", -1], ["--snapshot-noise = -1", "above 0"]),
        (["--correlation", 1], ["--correlation = 1", "below 1"]),
        (["--optimal-error", 1], ["--optimal-error = 1", "below 1"]),
        (["--floor-share", 1], ["floor share = 1", "below 1"]),
        (["--confidence", 95], ["--confidence = 95", "below 1"]),
        (["--studies", 1], ["--studies = 1", "at least 2"]),
        (["--sigma", 1], ["--sigma = 1", "--pilot"]),
        (["--pilot", "none.csv"], ["none.csv"]),
        (["--pilot", "none.csv", "--floor-share", 0.5], ["--pilot gives the law"]),
    ],
)
def test_wrong_options_of_power_are_one_sentence(jstar, more, words):
    status, out, err = jstar(*power(*more))
    assert (status, out) == (2, "")
    assert err.startswith("jstar: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_help_waits_for_nothing_heavy():
    heavy = {"torch", "numpy", "pandas", "scipy", "matplotlib", "pydantic", "snakemake"}
    code = f"import sys, jstar.cli; sys.exit(' '.join({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_study_begins_before_what_tells_of_it_is_loaded():
    heavy = {"torch", "pandas", "lmfit", "scipy.stats", "matplotlib"}
    code = f"import sys, jstar.run_study; sys.exit(' '.join({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_a_fit_reads_its_tables_before_what_fits_them_is_loaded():
    heavy = {"torch", "lmfit", "scipy.stats", "matplotlib"}
    code = f"import sys, jstar.scaling.stage; sys.exit(' '.join({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("sys.exit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("print('short', end='', file=open('/dev/full', 'w')); sys.exit(0)", 0, ""),
    ],
)
def test_the_process_ends_as_python_does_only_sooner(body, status, said, tmp_path):
    """Exit handlers run, threads are waited for, all is printed; but nothing is taken apart."""
    code = f"""
import atexit, sys, tempfile, threading, time
from jstar import __main__, cli
class Kept:
    def __del__(self): print("taken apart")
def main():
    sys.kept = Kept()
    sys.folder = tempfile.TemporaryDirectory(dir="{tmp_path}")
    atexit.register(print, "handler")
    threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
    print("begun", end=" ")
    {body}
cli.main = main
__main__.run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stdout == "begun thread\nhandler\n"
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_the_end_of_the_process_is_told():
    code = """
import atexit, sys
atexit.register(print, "earlier")
from jstar import __main__, cli
cli.main = lambda: sys.exit(3)
__main__.run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "earlier\n")


def test_what_cannot_be_printed_is_no_success():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "jstar", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1


def test_help_says_units(jstar):
    for command, words in (
        ("fit", ["FLOPs", "images (or tokens) seen"]),
        ("power", ["FLOPs", "relative"]),
    ):
        status, out, _ = jstar(command, "--help")
        assert status == 0
        for word in words:
            assert word in re.sub(r"[\s│]+", " ", out)
