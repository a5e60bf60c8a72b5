"""Checkpoints of which each rank has written its part: what counts, and what is passed over."""

import pytest
import torch

from jstar.train.checkpoint import KEEP, load_newest, mark, write_part
from jstar.train.parallel import Ranks
from jstar.train.tensor_file import TensorFile

WORLD = 3
WEIGHTS = {"weights/a": torch.randn(7, 5), "weights/b": torch.randn(2, 3)}  # 3 + 3 + 1, 1 + 1 + 0


def part(rank, scale):
    """What a rank writes: its rows as FSDP2 cuts them, and the first one the rest."""
    rest = {"records": scale * torch.arange(6.0), "adam_steps": torch.tensor(scale)}
    cut = {}
    for name, weight in WEIGHTS.items():
        rows = list(torch.chunk(scale * weight, WORLD))
        cut[name] = rows[rank] if rank < len(rows) else weight[:0]
    return cut | (rest if rank == 0 else {})


def write(folder, images, scale):
    """The parts of a checkpoint, not marked yet; what its marker needs."""
    made = {}
    for rank in range(WORLD):
        tensors = part(rank, scale)
        file = TensorFile(tensors)
        for name, tensor in tensors.items():
            file.put(name, tensor)
        made |= write_part(folder, images, file, Ranks(rank, WORLD, torch.device("cpu")))
    return made


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of 100 and of 200 images."""
    for images, scale in ((100, 1.0), (200, 2.0)):
        mark(tmp_path, images, {"step": images // 10}, write(tmp_path, images, scale))
    return tmp_path


def test_the_parts_are_put_together(folder):
    found, complaints = load_newest(folder)
    assert complaints == []
    assert found.facts["images"] == 200
    assert found.facts["step"] == 20
    assert len(found.parts) == WORLD
    assert [len(p["weights/b"]) for p in found.parts] == [1, 1, 0]
    assert all(torch.equal(found.whole(name), 2 * weight) for name, weight in WEIGHTS.items())
    assert torch.equal(found.whole("records"), 2 * torch.arange(6.0))
    assert found.whole("adam_steps") == 2.0


@pytest.mark.parametrize("rank", range(WORLD))
@pytest.mark.parametrize(
    ("damage", "said"), [("missing", "is missing"), ("cut", "is damaged"), ("bit", "is damaged")]
)
def test_without_one_part_the_checkpoint_before_is_taken(damage, said, rank, folder):
    file = folder / f"000000000000200.000{rank + 1}-of-0003.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content[:-9] if damage == "cut" else content)
    found, complaints = load_newest(folder)
    assert found.facts["images"] == 100
    assert torch.equal(found.whole("weights/a"), WEIGHTS["weights/a"])
    assert len(complaints) == 1
    assert complaints[0].startswith(f"{file}: {said}")


def test_a_flaw_that_another_rank_finds_counts_for_all(folder):
    told = [["a part is damaged"], []]  # by the second of two, of the newest and of the one before

    class First(Ranks):
        def gather(self, value):
            return [value, told.pop(0)] if value == [] else [value]

    found, complaints = load_newest(folder, First(0, 2, torch.device("cpu")))
    assert found.facts["images"] == 100
    assert complaints == ["a part is damaged"]
    assert told == []


def test_parts_without_a_marker_do_not_count_and_are_removed_later(folder):
    write(folder, 300, 3.0)
    assert load_newest(folder)[0].facts["images"] == 200
    mark(folder, 400, {}, write(folder, 400, 4.0))
    assert {file.name[:15] for file in folder.iterdir()} == {"000000000000200", "000000000000400"}
    assert load_newest(folder)[0].facts["images"] == 400


def test_what_other_ranks_write_already_stays(folder):
    ahead, half = write(folder, 400, 4.0), folder / ".000000000000500.0002-of-0003.x.safetensors"
    half.touch()
    mark(folder, 300, {}, write(folder, 300, 3.0))
    assert half.exists()
    markers = sorted(int(file.stem) for file in folder.glob("*.json"))
    assert markers == [200, 300]
    assert len(markers) == KEEP
    mark(folder, 400, {}, ahead)
    assert torch.equal(load_newest(folder)[0].whole("weights/a"), 4 * WEIGHTS["weights/a"])
