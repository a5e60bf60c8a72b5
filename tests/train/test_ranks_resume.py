"""Several processes killed and resumed equal several that were not, to the last bit.

A chunk is one step and a record four, so that checkpoints fall within a record. With FSDP each
process writes its part of a checkpoint: one dies in the middle of its own, one before the marker.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ranks import launch, state

from jstar.config import Study
from jstar.train.parallel import ALONE, Ranks
from jstar.train.run import CHECKPOINTS, Run

STEPS, RECORDS = 40, 10
SAVED, IN_A_PART, UNMARKED = "after the save", "in the second part", "before the marker"
KILLED = ((17, SAVED), (27, SAVED))
SHARDED = ((17, SAVED), (22, IN_A_PART), (27, UNMARKED))


def work(config, data, folder, step, moment):
    """Train as one of several; SIGKILL at that moment of the checkpoint of that step."""
    import signal

    from jstar.train import events, run, train
    from jstar.train.tensor_file import TensorFile

    events.CHUNK_STEPS, events.RECORDS = 1, RECORDS
    save, write, mark, killed = run.Run.save, TensorFile.write, run.mark, int(step)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def save_and_die(self):
        save(self)
        if moment == SAVED and self.step == killed:
            self.wait_for_saves()
            die()

    def half(self):
        yield self.head
        die()

    def write_half(self, path):
        if moment == IN_A_PART and path.name.startswith(f"{killed * 64:015d}.0002"):
            TensorFile.blocks = half
        return write(self, path)

    def die_unmarked(folder, images, *more):
        if moment == UNMARKED and images == killed * 64:
            die()
        mark(folder, images, *more)

    run.Run.save, TensorFile.write, run.mark = save_and_die, write_half, die_unmarked
    root = Path(folder)
    train(Study.parse(yaml.safe_load(config)), "d2", 0, Path(data), root / "out", root / "state",
          curve=Path(data) / "none.csv", device="cpu", threads=1)  # fmt: skip


@pytest.mark.parametrize(
    ("processes", "options", "kills"),
    [(2, {"parallel": "fsdp"}, SHARDED),
     (3, {"parallel": "ddp", "batch": 66, "microbatch": 12}, KILLED)],
    ids=["fsdp", "ddp"],
)  # fmt: skip
def test_killed_and_resumed_several_are_bitwise_equal(
    processes, options, kills, tiny_study, digits, tmp_path, contents
):
    batch = options.get("batch", 64)
    keys = {"images": STEPS * batch, "batch": batch, "checkpoint_images": 1, **options}
    study = tiny_study(train=keys)
    launch(__file__, study, digits, tmp_path / "calm", processes, (0, ""))
    folder, names = tmp_path / "stormy" / "state" / CHECKPOINTS, set()
    for step, moment in kills:
        launch(__file__, study, digits, tmp_path / "stormy", processes, (step, moment), killed=True)
        names = {path.name for path in folder.iterdir()}
        marked = max(int(path.stem) for path in folder.glob("[0-9]*.json"))
        assert (marked == step * batch) == (moment == SAVED)
        assert any(name.startswith(".") for name in names) == (moment == IN_A_PART)
    if kills == SHARDED:
        assert names >= {f"{27 * batch:015d}.{part}-of-0002.safetensors"
                         for part in ("0001", "0002")}  # fmt: skip
        # Of the newest with a marker: the second rank may have written more than one without.
        second = folder / f"{marked:015d}.0002-of-0002.safetensors"
        content = bytearray(second.read_bytes())
        content[len(content) // 2] ^= 1
        second.write_bytes(content)
    said = launch(__file__, study, digits, tmp_path / "stormy", processes, (0, ""))
    passed_over = [line for line in said.splitlines() if "trying the one before" in line]
    assert len(passed_over) == (kills == SHARDED)
    assert kills != SHARDED or f"{second}: is damaged" in passed_over[0]
    assert contents(tmp_path / "calm") == contents(tmp_path / "stormy")
    calm, stormy = (state(tmp_path / name) for name in ("calm", "stormy"))
    assert len(calm["records"]) >= RECORDS * 16 * 8
    assert [name for name in calm if calm[name] != stormy[name]] == []
    alone = Run(Study.parse(study), "d2", 0, digits, tmp_path / "stormy" / "state", ALONE)
    alone.restore()
    assert alone.step == STEPS
    parts = alone.parts()
    assert {*parts, *alone.rest()} == {*stormy}
    assert all(part.detach().numpy().tobytes() == stormy[k] for k, (part, _) in parts.items())


def test_of_another_number_of_ranks_the_first_holds_the_sum():
    rows = torch.arange(12.0).view(3, 2, 2)
    cpu = torch.device("cpu")
    assert all(torch.equal(Ranks(k, 3, cpu).own(rows), rows[k]) for k in range(3))
    two = [Ranks(k, 2, cpu).own(rows) for k in range(2)]
    assert torch.equal(two[0], rows.sum(0))
    assert not two[1].any()
    assert torch.equal(Ranks(0, 1, cpu).rows(rows[1]), rows[1:2])


if __name__ == "__main__":
    work(*sys.argv[1:])
