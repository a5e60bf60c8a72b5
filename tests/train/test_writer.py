"""The telemetry as TensorBoard and W&B read it back. Skipped where they are not installed."""

import struct
import sys

import numpy as np
import pandas as pd
import pytest

from jstar.errors import JstarError
from jstar.train.run import Run


def expected(folder):
    """Mean training loss at each record, and the x0 loss of the bin of smallest sigma."""
    table = pd.read_csv(folder / "out" / "telemetry.csv")
    first = table[table["bin"] == 0].set_index("images")["loss"]
    weighted = (table["weighted"] * table["count"]).groupby(table["images"]).sum()
    return weighted / table.groupby("images")["count"].sum(), first


def interrupted(run_tiny, monkeypatch, **train):
    """A run that was stopped once between a record and its checkpoint; its folder."""
    snapshot, met = Run.write_snapshot, []

    def crash(self, index):
        if index == 4 and not met:
            met.append(index)
            raise InterruptedError
        snapshot(self, index)

    monkeypatch.setattr(Run, "write_snapshot", crash)
    with pytest.raises(InterruptedError):
        run_tiny(train={"checkpoint_images": 1, **train})
    return run_tiny(train={"checkpoint_images": 1, **train})[1]


def test_tensorboard_holds_every_record_once(run_tiny, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = interrupted(run_tiny, monkeypatch, writer="tensorboard")
    board = EventAccumulator(str(folder / "state" / "tensorboard"))
    board.Reload()
    loss, first = expected(folder)
    events = board.Scalars("loss")
    assert [event.step for event in events] == list(loss.index)
    np.testing.assert_allclose([event.value for event in events], loss, rtol=1e-5)
    smallest = min(
        (tag for tag in board.Tags()["scalars"] if tag.startswith("loss_at_sigma/")),
        key=lambda tag: float(tag.split("/")[1]),
    )
    np.testing.assert_allclose([e.value for e in board.Scalars(smallest)], first, rtol=1e-5)
    assert all(event.value > 0 for event in board.Scalars("speed/images_per_second"))


def log_records(content):
    """Records of a LevelDB log (W&B's file format, after 7 bytes of its own)."""
    at, half = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:  # the rest of a block is padding
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        half += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield half
            half = b""


def test_wandb_runs_offline_without_an_account(run_tiny, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    _, folder = run_tiny(train={"writer": "wandb"})
    (file,) = (folder / "state" / "wandb").glob("offline-run-*/*.wandb")
    rows = []
    for data in log_records(file.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append({"/".join(i.nested_key) or i.key: float(i.value_json)
                         for i in record.history.item})  # fmt: skip
    loss, _ = expected(folder)
    assert [row["images"] for row in rows] == list(loss.index)
    np.testing.assert_allclose([row["loss"] for row in rows], loss, rtol=1e-5)
    assert wandb.run is None


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_writer_that_is_not_installed_is_named(kind, module, run_tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JstarError, match=f"the package '{kind}' is not installed"):
        run_tiny(train={"writer": kind})
