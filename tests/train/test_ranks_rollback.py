"""Bad images that one rank alone sees: all ranks skip, go back and leave out the same.

A chunk is one step and a checkpoint falls due every eight, so nothing depends on the clock.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ranks import launch, state
from safetensors.torch import load_file

from jstar.config import Study
from jstar.records import read_json, read_table

STEPS, RECORDS, BATCH, SAVES, FEW = 56, 14, 64, 8, 4
# Of what is trained on: one is skipped; three in a row lead from step 23 back to 16, which leaves
# out 7; so the last five come at steps 34, 36, 38, 40 and 42, too many, and from 43 back to 40.
BAD = (10, 20, 21, 22, 41, 43, 45, 47, 49)
ONE_NUMBER = 21  # where sharded: of the gradients a single one, in the last rank's part of them
SKIPPED, ROLLBACKS, LEFT_OUT = 4, 2, 7 + 3
SAID = (f"3 steps had a loss or gradient that is not finite at image {23 * BATCH}; "
        f"back to image {16 * BATCH}, the data of 7 steps are left out")  # fmt: skip
NEVER, GONE_BACK, SAVED = "never", "has gone back", "has saved since"


def work(config, data, folder, moment):
    """Train as one of several, or alone; SIGKILL to the last rank at that moment, after the first
    time that it went back."""
    import signal

    from jstar.train import events, loop, run, train
    from jstar.train.parallel import local

    events.CHUNK_STEPS, events.RECORDS, loop.FEW = 1, RECORDS, FEW
    rank, world = (int(os.environ.get(key, k)) for k, key in enumerate(("RANK", "WORLD_SIZE")))
    last, seen, root = rank == world - 1, [], Path(folder)
    gradient, chunk, back, save = loop._gradient, loop.run_chunk, run.Run.roll_back, run.Run.save

    def poisoned(run, chunk, k, error_B):
        at = run.step + run.leap
        single = at == ONE_NUMBER and run.config.parallel == "fsdp"
        if last and at in BAD and not single:
            chunk.target[k, -1] = float("nan")
        gradient(run, chunk, k, error_B)
        if last and single:
            local(run.named["network.last.weight"].grad)[-1, -1] = float("inf")

    def watched(run, border):
        try:
            return chunk(run, border)
        finally:
            seen.append([run.step, run.leap, *run.optimizer.health[:4].tolist()])

    def gone_back(self):
        left_out = back(self)
        if moment == GONE_BACK and last:
            os.kill(os.getpid(), signal.SIGKILL)
        return left_out

    def saved(self):
        save(self)
        if moment == SAVED and self.rollbacks:
            self.wait_for_saves()
            os.kill(os.getpid(), signal.SIGKILL)

    loop._gradient, loop.run_chunk = poisoned, watched
    run.Run.roll_back, run.Run.save = gone_back, saved
    train(Study.parse(yaml.safe_load(config)), "d2", 0, Path(data), root / "out", root / "state",
          curve=Path(data) / "none.csv", device="cpu", threads=1)  # fmt: skip
    (root / f"{rank}.json").write_text(json.dumps(seen))


def study_of(tiny_study, options):
    keys = {"images": STEPS * BATCH, "batch": BATCH, "checkpoint_images": SAVES * BATCH}
    return tiny_study(train={**keys, "cooldown": {"snapshots": 1}, **options})


@pytest.mark.parametrize(
    "options", [{"parallel": "fsdp"}, {"parallel": "ddp", "microbatch": 12}], ids=["fsdp", "ddp"]
)
def test_what_one_rank_finds_bad_all_leave_out(options, tiny_study, digits, tmp_path, contents):
    study = study_of(tiny_study, options)
    one, two, storm = (tmp_path / name for name in ("one", "two", "storm"))
    for folder, processes in ((one, 1), (two, 2)):
        said = launch(__file__, study, digits, folder, processes, (NEVER,))
        assert said.count("are left out") == ROLLBACKS
        assert SAID in said
        facts = read_json(folder / "out" / "run.json")
        assert facts["skipped_steps"] == SKIPPED
        assert (facts["rollbacks"], facts["left_out_steps"]) == (ROLLBACKS, LEFT_OUT)
        speed = read_table(folder / "out" / "speed.csv")
        assert {*speed["skipped_steps"]} >= {0, 1, SKIPPED}
        assert speed["skipped_steps"].is_monotonic_increasing  # none of those that were undone
        assert np.isfinite(speed["gradient_norm"]).all()
    alone, *ranks = (json.loads(path.read_text())
                     for path in (one / "0.json", two / "0.json", two / "1.json"))  # fmt: skip
    assert alone == ranks[0] == ranks[1]
    near(one / "out", two / "out")
    for moment in (GONE_BACK, SAVED):
        launch(__file__, study, digits, storm, 2, (moment,), killed=True)
    said = launch(__file__, study, digits, storm, 2, (NEVER,))
    assert said.count("are left out") == 1  # the second time; the first is in the checkpoint
    assert contents(two) == contents(storm)
    assert state(two) == state(storm)
    facts, calm = (read_json(folder / "out" / "run.json") for folder in (storm, two))
    for key in ("skipped_steps", "rollbacks", "left_out_steps"):
        assert facts[key] == calm[key]


def near(one, two):
    """Telemetry and networks of one process and of two."""
    a, b = (read_table(run / "telemetry.csv") for run in (one, two))
    assert a["count"].tolist() == b["count"].tolist()
    assert a["count"].sum() == STEPS * BATCH - SKIPPED  # one image of each has no loss
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
    for file in sorted((one / "snapshots").glob("*.safetensors")):
        first, second = load_file(file), load_file(two / "snapshots" / file.name)
        assert first.keys() == second.keys()
        for name, weight in first.items():
            np.testing.assert_allclose(weight, second[name], rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    work(*sys.argv[1:])
