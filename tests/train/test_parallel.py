"""Two processes train the same run as one."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from ranks import forked
from safetensors.torch import load_file

from jstar.train.snapshots import cooldown_file, list_cooldowns

STEPS, BATCH = 50, 64
TRAIN = {"images": STEPS * BATCH, "batch": BATCH}  # a record a step
BF16 = 5e-4  # of the loss; 1e-4 measured


def launch(
    root, study, processes, *, work="train", expect=0, before=("prepare",), torchrun=False
):  # fmt: skip
    """Train (or tune) through the command line, also in several processes; torchrun: started by it,
    whose exit status is then what is expected."""
    root.mkdir(exist_ok=True)
    file = root / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    common = ["--config", str(file), "--results", str(root / "results")]
    if not (root / "results" / "data").exists():
        for stage in before:
            assert forked(["jstar", stage, *common], root)[0] == [0]
    command = ["jstar", work, *common, "--model", "d2", "--device", "cpu"]
    if torchrun:
        start = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        done = subprocess.run(
            [sys.executable, "-m", *start, "-m", *command], capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=400,
        )  # fmt: skip
        codes, said = [done.returncode], done.stderr
    else:
        codes, said = forked(command, root, processes)
    assert {*codes} == {expect}, said[-3000:]
    return root / "results" / "runs" / "tiny" / "d2-s0"


def losses(run):
    table = pd.read_csv(run / "telemetry.csv")
    assert table["images"].nunique() == STEPS
    total = (table["weighted"] * table["count"]).groupby(table["images"]).sum()
    return (total / BATCH).to_numpy(), table["count"].to_numpy()


@pytest.mark.parametrize("options", [
    {"parallel": "ddp"},
    {"parallel": "fsdp"},
    {"parallel": "fsdp", "microbatch": 12, "activation_checkpointing": True},
])  # fmt: skip
def test_two_processes_have_the_loss_curve_of_one(options, tmp_path, tiny_study, run_tiny):
    keys = {**TRAIN, "cooldown": {"snapshots": 1}}  # ten more steps
    one = run_tiny(model="d2", train=keys)[1] / "out"
    study, torchrun = tiny_study(train={**keys, **options}), options == {"parallel": "ddp"}
    two = launch(tmp_path / "two", study, 2, torchrun=torchrun)
    (a, counts_a), (b, counts_b) = losses(one), losses(two)
    assert np.array_equal(counts_a, counts_b)
    assert a[-1] < 0.95 * a[0]
    np.testing.assert_allclose(a, b, rtol=1e-5)
    ends = [load_file(cooldown_file(run, list_cooldowns(run)[0].index)) for run in (one, two)]
    assert ends[0].keys() == ends[1].keys()
    for name, weight in ends[0].items():
        np.testing.assert_allclose(weight, ends[1][name], rtol=1e-5, atol=1e-5)


def test_sharded_in_bf16_only_the_products_lose_digits(tmp_path, tiny_study, run_tiny):
    half = {**TRAIN, "precision": "bf16"}
    one = run_tiny(model="d2", train=half)[1] / "out"
    two = launch(tmp_path / "two", tiny_study(train={**half, "parallel": "fsdp"}), 2)
    np.testing.assert_allclose(losses(one)[0], losses(two)[0], rtol=BF16)


def test_two_processes_try_the_same_rates_as_one(tmp_path, tiny_study):
    tune = {"enabled": True, "factors": [0.5, 1.0, 2.0], "share": 0.4}
    study = tiny_study(train={**TRAIN, "warmup_images": 64, "parallel": "fsdp"}, tune=tune)
    tables = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        launch(root, study, processes, work="tune", before=("prepare", "oracle"))
        tables.append(pd.read_csv(root / "results/tune/tiny/d2/trials.csv"))
    one, two = tables
    assert len(one) >= 3
    assert list(one["rate"]) == list(two["rate"])
    np.testing.assert_allclose(one["gap"], two["gap"], rtol=1e-4)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, tiny_study, run_tiny):
    whole = run_tiny(model="d2", train=TRAIN)[1] / "out"
    stop_early = {**TRAIN, "time_budget_minutes": 1e-9, "parallel": "fsdp"}  # a step a session
    launch(tmp_path / "both", tiny_study(train=stop_early), 1, expect=75)
    launch(tmp_path / "both", tiny_study(train=stop_early), 2, expect=1, torchrun=True)
    both = launch(tmp_path / "both", tiny_study(train=TRAIN), 1)
    np.testing.assert_allclose(losses(whole)[0], losses(both)[0], rtol=1e-5)


def test_two_processes_follow_the_gap_as_one_does(tmp_path, tiny_study):
    study = tiny_study(train={**TRAIN, "noise": {"law": "optimal_loss"}})
    one, two = (launch(tmp_path / str(n), study, n, before=("prepare", "optimal")) for n in (1, 2))
    np.testing.assert_allclose(losses(one)[0], losses(two)[0], rtol=1e-4)
    a, b = (pd.read_csv(run / "noise_law.csv") for run in (one, two))
    np.testing.assert_allclose(a["density"], b["density"], rtol=1e-3)
    assert a.groupby("sigma")["density"].std().max() > 0.01  # it moved
