"""The losses of a real run, also of averages that it did not store and of its cooldowns."""

import numpy as np
import pytest

from jstar.config import Study
from jstar.constants import COOLDOWN
from jstar.data import prepare
from jstar.errors import JstarError
from jstar.evaluate import write_losses
from jstar.optimal.stage import write_oracle
from jstar.records import read_json
from jstar.train import train
from jstar.train.snapshots import list_cooldowns


def test_an_average_is_measured_where_the_snapshots_tell_it(tiny_study, tmp_path):
    keys = {**tiny_study()["train"], "ema": [0.05, 0.1, 0.2], "snapshots": 12,
            "cooldown": {"snapshots": 2}}  # fmt: skip
    study = Study.parse(tiny_study(train=keys, evaluate={"ema": [0.1, 0.15], "queries": 32}))
    data, oracle, run, out = (tmp_path / n for n in ("data", "oracle", "run", "losses.csv"))
    prepare(study.dataset, data)
    write_oracle(study, data, oracle)
    train(study, "d1", 0, data, run, tmp_path / "state", device="cpu", threads=1)
    losses = write_losses(study, run, data, oracle, out, "cpu")
    seen = losses.groupby("ema")["snapshot"].unique().map(sorted)
    last = seen[0.1][-1]
    assert seen[0.1] == list(range(last + 1))
    assert seen[0.15][0] > 0  # one snapshot tells no other length
    assert seen[0.15] == list(range(seen[0.15][0], last + 1))
    ends = losses[losses["ema"] == COOLDOWN]
    assert set(ends["snapshot"]) == {snapshot.index for snapshot in list_cooldowns(run)}
    assert ends["snapshot"].nunique() == 2
    # Its number, images and FLOPs are those of the snapshot at which it ends.
    place = ["snapshot", "images", "flops", "split", "sigma"]
    assert len(ends.merge(losses[losses["ema"] == 0.1], on=place)) == len(ends)
    assert len(ends) == 2 * losses["split"].nunique() * (6 + 1)
    assert not ends["gap"].isin(losses.loc[losses["ema"] != COOLDOWN, "gap"]).any()
    rows = losses[losses["snapshot"] == last].pivot_table(index="sigma", columns="ema",
                                                          values="loss", sort=False)  # fmt: skip
    assert np.abs(rows[0.15] / rows[0.1] - 1).between(1e-5, 0.5).all()
    error = read_json(out.with_suffix(".json"))["profile_error"]
    assert 1e-4 < error["0.15"] < 0.01
    assert error["0.1"] < 1e-6
    budget = {**keys, "images": None, "flops": 1e9}  # no file can tell the snapshots of this one
    other = Study.parse(tiny_study(train=budget, evaluate={"ema": [0.01]}))
    with pytest.raises(JstarError, match="0.01 is not stored"):
        write_losses(other, run, data, oracle, out, "cpu")
