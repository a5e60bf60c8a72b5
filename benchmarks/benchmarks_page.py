"""Writes docs/benchmarks.md from the committed tables: `python benchmarks/benchmarks_page.py`

Every number of that page is read from results/reference/benchmarks, and each table's question is
the first sentence of its program; tests/test_reference.py holds the page against what this makes.
A table joins by a line in SHOWN.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jstar.records import read_json
from jstar.scaling.paper_tables import number
from jstar.typeset import Rows, markdown

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "results" / "reference" / "benchmarks"


@dataclass(frozen=True)
class Shown:
    """A committed table on the page.

    program: in benchmarks/, "" for a command of jstar; words: what its columns mean; columns: those
    that are shown (default: all); query: the rows that are shown, in pandas' words; spread: (rows,
    columns, values) where the table is a list of facts.
    """

    title: str
    program: str
    words: str
    columns: tuple[str, ...] = ()
    query: str = ""
    spread: tuple[str, str, str] | None = None


PEER = ("what", "images_per_second", "images_per_cpu_second", "times_diffusers")
VERDICTS = ("design", "truth", "errors", "studies", "said_corrected", "said_above", "said_raw",
            "said_undecided", "wrong", "held")  # fmt: skip
COVERAGE = ("alpha", "optimal_share", "runs", "run_noise", "studies", "coverage", "coverage_se",
            "bias_over_sd")  # fmt: skip
GRID = ("tokens", "width", "batch", "used", "torch_ms", "c_times_torch", "lost", "forward_lost")
SHOWN = {
    "install": Shown(
        "Installing, and the first answer", "install",
        "One column a Python. `core` is `pip install .`; the last rows are what the pins resolve "
        "to on a machine where nothing is installed, which takes the CUDA build.",
        spread=("what", "python", "value"),
    ),
    "newcomer": Shown(
        "From clone to verdict", "newcomer",
        "What stands on the screen, every 30 seconds: the last line of the command that runs.",
    ),
    "study_before": Shown(
        "The default study beside the code of November 25", "study",
        "A round each: the study file of that commit by its code and by this one, in turns. This "
        "code's fits simulate whole studies, which that one's did not.",
    ),
    "bench": Shown(
        "What `jstar bench` prints", "",
        "On one thread, by processor time, unless the line says otherwise. `used`: what jstar does "
        "on that machine.",
    ),
    "optimal": Shown(
        "J\\* of a dataset", "optimal", "Differences are those to float64, as a share of the "
        "error that is allowed.", spread=("what", "data", "value"),
    ),
    "optimal_zen5": Shown(
        "J\\* on AMD's Zen 5", "optimal",
        "Torch's float32 products take twice the time there that the processor would allow.",
        spread=("what", "data", "value"),
    ),
    "optimal_zen5_avx2": Shown(
        "The same with AVX2 alone", "optimal",
        "Torch, its products and our kernels held to AVX2: no 512 bits, no products of bytes.",
        spread=("what", "data", "value"),
    ),
    "optimal_peers": Shown(
        "J\\* beside other programs", "optimal_peers",
        "`seconds whole curve`: scaled from the noise scales and draws that were timed. "
        "`largest difference`: of their posterior means to ours, relative.",
    ),
    "fid_peers": Shown(
        "FID, KID, precision and recall, beside public code", "fid_peers",
        "FID and KID beside torch-fidelity (KID of 100 random subsets, `deviation theirs` between "
        "these), precision beside `torch.cdist` and `kthvalue`, recall in the same time. `fall`: "
        "features over which their variances fall by e. `seconds`: of the processor, ours with "
        "the standard error.",
    ),
    "optimal_large": Shown(
        "J\\* of more data than memory", "optimal_large",
        "Images of 12,288 values, as many as ImageNet has. `seconds 8000 draws` is extrapolated.",
    ),
    "optimal_large_zen5_avx2": Shown(
        "The same on Zen 5 with AVX2 alone", "optimal_large",
        "From more draws, with the images in the system's cache.",
    ),
    "train_peer": Shown(
        "Training beside diffusers", "train", "Side by side, in turns.", columns=PEER,
    ),
    "train_network": Shown(
        "Networks in C beside torch", "train_network",
        "`c times torch`: torch's time over that in C, forward and backward; `used`: what jstar "
        "does at that size.",
    ),
    "train_network_grid": Shown(
        "What the choice between C and torch loses", "train_network",
        "Networks of one block. `lost`, `forward lost`: the time of the way used over that of the "
        "faster one, less 1; of a forward and backward pass, and of a forward pass, which goes the "
        "same way.",
        columns=GRID,
    ),
    "train_network_grid_zen5": Shown(
        "The same on AMD's Zen 5", "train_network",
        "Torch's products take twice the time there that the processor would allow.",
        columns=GRID,
    ),
    "train_network_grid_zen5_avx2": Shown(
        "The same with AVX2 alone, on Zen 5", "train_network",
        "Torch, its products and our kernels held to AVX2 (ATEN_CPU_CAPABILITY=avx2, and MKL's and "
        "oneDNN's alike).",
        columns=GRID,
    ),
    "train_saves": Shown(
        "How long training stands still for checkpoints", "train_saves",
        "A disk of 20 MB/s, simulated. `stalled share`: of the wall-clock time, without the wait "
        "after the last step.",
        columns=("saves", "checkpoint_mb", "checkpoints", "write_seconds", "wall_seconds",
                 "stalled_seconds", "stalled_share", "seconds_after_last_step"),
    ),
    "train_saves_ranks": Shown(
        "The same with two processes", "train_saves",
        "Under FSDP each writes its part, at half of the disk's 20 MB/s; under DDP the "
        "first writes. Of the rank that stood still longest.",
        columns=("parallel", "saves", "disk_mb_per_second", "checkpoints", "write_seconds",
                 "wall_seconds", "stalled_seconds", "stalled_share", "seconds_after_last_step"),
    ),
    "rehearse_golden": Shown(
        "The reference of `jstar rehearse`", "rehearse_golden",
        "Two cores which others used too (load 4.5): an idle machine is faster. `asked seconds`: "
        "what the rehearsal leaves it, 0: one image; `images`: of one step whose loss it "
        "compared; `seconds`: of its whole process, torch's import included.",
    ),
    "train_memory": Shown(
        "Memory of a training process over the dataset's size", "train_memory",
        "`private`: written to by this process; `mapped`: from files, which the system may drop. "
        "The row of 8 ranks is computed.",
        columns=("images", "dataset_mb", "store", "ranks", "how", "rank", "private_mb",
                 "mapped_mb"),
    ),
    "train_graphs": Shown(
        "Ways to train a step, computed", "train_graphs",
        "Nothing of it is measured: counted graphs and bytes, and milliseconds by a roofline; what "
        "follows from it stands on [a page of its own](speed.md).",
        columns=("size", "way", "graphs_a_block", "cut", "saved_gib", "gpu_gib", "fits", "moved_gb",
                 "step_ms"),
    ),
    "train_width_best": Shown(
        "The learning rate over width", "train_width",
        "`rate`: the best before the width rule; `regret`: what the best rate of all widths costs.",
    ),
    "tune_transfer": Shown(
        "Short trials against whole runs", "tune",
        "`share` of a run that a trial takes (the stage's default: .4), the rate that it chooses, "
        "and `regret`: what that rate costs at the end of the whole run; `prior regret`: what the "
        "width rule's rate costs there.",
        columns=("model", "share", "prior_rate", "chosen_rate", "trials", "whole_best_rate",
                 "scatter_percent", "regret_percent", "prior_regret_percent"),
    ),
    "averages": Shown(
        "Averages that were not stored", "averages",
        "Three lengths stored in the longest run. Errors of the gap at the worst noise scale: of "
        "the reconstruction, and of the stored length with the nearest weights.",
        columns=("model", "length", "residual", "weights", "worst_gap", "nearest_worst_gap"),
        query="images == images.max() and stored == '0.05 0.1 0.2'",
    ),
    "scaling_speed": Shown(
        "The fits of a study", "scaling_speed",
        "`solver`: of the joint laws; NumPy where no C compiler is.",
    ),
    "scaling_replicas": Shown(
        "Does the default study say the same again?", "scaling_replicas",
        "Replicas share no run. `fitted_from`: images at which the joint law begins.",
        columns=("sigma", "replica", "verdict", "alpha", "alpha_low", "alpha_high", "fitted_from"),
        query="verdict != 'undecided'",
    ),
    "scaling_replicas_expected": Shown(
        "How many verdicts it expects", "scaling_replicas",
        "Of 17 noise scales: found, and what 80 % of studies simulated in each replica's design "
        "lie between, were J\\* the floor at all of them.",
        columns=("replica", "verdict", "found", "low", "median", "high"),
        query="world == 'optimal'",
    ),
    "scaling_onset": Shown(
        "Verdicts of runs that leave a plateau", "scaling_onset",
        "Shares of the studies. `onset`: whether the joint law begins at the onset; `fitted_from`: "
        "the images at which, on average.",
    ),
    "scaling_verdicts": Shown(
        "How often a verdict is wrong", "scaling_verdicts",
        "Shares of simulated studies. `held`: α's interval held the truth.", columns=VERDICTS,
    ),
    "scaling_coverage_frontier": Shown(
        "Intervals of an envelope's exponent", "scaling_coverage",
        "Intervals of 95 %: `coverage` should be 0.95.",
        columns=("alpha", "seeds", "run_noise", "cluster", "studies", "coverage", "coverage_se"),
    ),
    "scaling_coverage": Shown(
        "Intervals of one law's exponent", "scaling_coverage",
        "Intervals of 95 %: `coverage` should be 0.95.", columns=COVERAGE,
    ),
    "scaling_coverage_optimal": Shown(
        "Intervals where J\\* has an error", "scaling_coverage",
        "`propagated`: with J\\*'s error in the interval, and without.",
        columns=("optimal_share", "optimal_error", "propagated", "studies", "coverage",
                 "coverage_se"),
    ),
    "diagnose_adapters": Shown(
        "Is a network called right?", "diagnose_adapters",
        "`is` is the truth, `verdict` what `jstar diagnose` says; `named`: with the right words.",
        columns=("network", "usage", "is", "verdict", "named"),
    ),
    "diagnose_floors": Shown(
        "Healthy or memorising?", "diagnose_floors",
        "`gap` to J\\* and `above floor` to what held-out images allow, at steps of one run.",
        columns=("step", "verdict", "gap", "above_floor", "memorised"),
    ),
}  # fmt: skip
LONGEST = 100  # characters of a cell: what pip says is longer
HEAD = """# Benchmarks

Generated by `python benchmarks/benchmarks_page.py` from the tables in
`results/reference/benchmarks`; no number here is typed. Seconds are of one machine of two cores,
which other jobs shared more often than not: where it says so they are of the processor, and
programs that are compared took turns.

"""


def question(name: str) -> str:
    """What a benchmark asks: the first sentence of its docstring, without its command."""
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").split("\n")[0]
    words = re.sub(r":? `?python benchmarks.*", "", first).strip()
    return words if words.endswith(("?", ".")) else f"{words}."


def cell(value: object) -> str:
    """A table's cell."""
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    try:
        found = float(str(value))
    except ValueError:
        text = str(value).replace("*", "\\*")
        return text if len(text) <= LONGEST else f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
    if pd.isna(found):
        return ""
    return f"{found:.0f}" if found.is_integer() and abs(found) < 1e9 else number(found)


def section(name: str) -> str:
    """One table: its question, what made it, its rows."""
    shown, facts = SHOWN[name], read_json(TABLES / f"{name}.json")
    frame = pd.read_csv(TABLES / f"{name}.csv", keep_default_na=False, na_values=[""])
    if shown.query:
        frame = frame.query(shown.query)
    if shown.spread:
        rows, columns, values = shown.spread
        order = frame[rows].drop_duplicates()
        frame = frame.set_index([rows, columns])[values].unstack().loc[order].reset_index()  # noqa: PD010
    frame = frame[list(shown.columns)] if shown.columns else frame
    head: Rows = [[str(column).replace("_", " ") for column in frame.columns]]
    body = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    command = facts.get("command", f"python benchmarks/{shown.program}.py")
    made = f"`{command}`, commit {facts['commit'].removesuffix('-dirty')}"
    machine = [facts[key] for key in ("device", "features") if facts.get(key)]
    made += f", {', '.join(machine)}" if machine else ""
    note = f"; {facts['note']}" if facts.get("note") else ""
    link = f"[{name}.csv](../results/reference/benchmarks/{name}.csv)"
    table = markdown(head + body, f"{link}: {made}{note}.")
    asked = f"{question(shown.program)} " if shown.program else ""
    return f"## {shown.title}\n\n{asked}{shown.words}".rstrip() + f"\n\n{table}"


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(section(name) for name in SHOWN if (TABLES / f"{name}.csv").is_file())


if __name__ == "__main__":
    (ROOT / "docs" / "benchmarks.md").write_text(page(), encoding="utf-8")
