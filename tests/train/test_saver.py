"""Saves in the background: the right bytes, the right moment, one error."""

import hashlib
import threading

import pytest
import torch
from safetensors.torch import load, save

from jstar.errors import JstarError
from jstar.train import tensor_file
from jstar.train.checkpoint import load_newest
from jstar.train.run import CHECKPOINTS, Run
from jstar.train.saver import Saver
from jstar.train.tensor_file import TensorFile

CPU = torch.device("cpu")


def filled(tensors, before=None):
    file = TensorFile(tensors, before)
    for name in reversed(tensors):
        file.put(name, tensors[name])
    return file


@pytest.mark.parametrize("piece", [64, 2**26])
def test_the_bytes_are_those_of_the_library(piece, monkeypatch, tmp_path):
    monkeypatch.setattr(tensor_file, "PIECE", piece)
    monkeypatch.setattr(tensor_file, "BLOCK", 40)
    tensors = {
        "weights/b": torch.randn(7, 5).T, "weights/a": torch.randn(3, 4), "step": torch.tensor(7.0),
        "sums": torch.randn(5, 3, dtype=torch.float64), "rows": torch.zeros(0, 3),
        "n": torch.arange(9), "with \"quotes\" and ü": torch.randn(1),
    }  # fmt: skip
    wanted = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    file = filled(tensors)
    made = file.write(tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == wanted
    assert made == {"bytes": len(wanted), "sha256": hashlib.sha256(wanted).hexdigest()}
    grown = tensors | {"rows": torch.randn(40, 3)}  # a table of a run, in memory used before
    filled(grown, file).write(tmp_path / "y.safetensors")
    read = load((tmp_path / "y.safetensors").read_bytes())
    assert read.keys() == grown.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in grown.items())


def test_what_is_written_is_what_was_there_when_it_was_copied(tmp_path):
    weight, go = torch.ones(1000), threading.Event()
    with Saver(CPU) as saver:
        saver.copy("checkpoint", {"w": weight}).put("w", weight)

        def write(copy):
            assert go.wait(20)
            copy.write(tmp_path / "x.safetensors")

        saver.start("checkpoint", write)
        weight.zero_()  # training goes on
        assert saver.busy
        saver.check()  # does not wait
        go.set()
        saver.wait()
        assert not saver.busy
    assert torch.equal(load((tmp_path / "x.safetensors").read_bytes())["w"], torch.ones(1000))


def test_of_a_kind_one_is_in_flight_and_all_keep_their_order():
    done, go = [], threading.Event()
    with Saver(CPU) as saver:
        for kind in ("snapshot", "checkpoint"):
            saver.copy(kind, {"w": torch.ones(1)})
            saver.start(kind, lambda copy, kind=kind: (go.wait(20), done.append(kind)))
        threading.Timer(0.05, go.set).start()
        saver.copy("checkpoint", {"w": torch.ones(1)})  # waits for the one in flight
        assert done == ["snapshot", "checkpoint"]


def test_an_error_is_raised_once_and_nothing_is_written_after_it():
    done = []

    def fail(copy):
        raise JstarError("a disk is full")

    with Saver(CPU) as saver:
        for kind in ("snapshot", "checkpoint"):
            saver.copy(kind, {"w": torch.ones(1)})
        saver.start("snapshot", fail)
        saver.start("checkpoint", done.append)
        with pytest.raises(JstarError, match="a disk is full"):
            saver.wait()
        saver.wait()
    assert done == []


def test_leaving_waits_and_the_first_error_is_the_one_that_is_raised(capsys):
    def fail(copy):
        raise JstarError("a disk is full")

    def leave(error):
        with Saver(CPU) as saver:
            saver.copy("checkpoint", {"w": torch.ones(1)})
            saver.start("checkpoint", fail)
            if error:
                raise error

    with pytest.raises(JstarError, match="a disk is full"):
        leave(None)
    with pytest.raises(ZeroDivisionError):
        leave(ZeroDivisionError())
    assert capsys.readouterr().err == "train: a disk is full\n"


def test_training_goes_on_while_a_checkpoint_is_written(run_tiny, contents, monkeypatch):
    _, calm = run_tiny("calm")
    steps, during, writing = [], [], threading.Event()
    write, save, wait = TensorFile.write, Run.save, threading.Event()

    def slowly(self, path):
        if path.parent.name == CHECKPOINTS and not during:
            writing.set()
            wait.wait(20)  # until a later step lets it go
            during.extend(steps)
        return write(self, path)

    def watched(run):
        if len(steps) >= 1:
            wait.set()
        save(run)
        steps.append(run.step)

    monkeypatch.setattr(TensorFile, "write", slowly)
    monkeypatch.setattr(Run, "save", watched)
    status, folder = run_tiny(train={"checkpoint_images": 640})
    assert status.finished
    assert writing.is_set()
    assert during  # a boundary was met while the first one was written
    assert contents(calm) == contents(folder)


def test_one_that_is_stopped_waits_until_it_is_saved(run_tiny, monkeypatch):
    monkeypatch.setattr("jstar.train.stop.Stop.reason", "SIGTERM")
    write = TensorFile.write

    def slowly(self, path):
        threading.Event().wait(0.3)
        return write(self, path)

    monkeypatch.setattr(TensorFile, "write", slowly)
    status, folder = run_tiny()
    assert not status.finished
    newest, complaints = load_newest(folder / "state" / CHECKPOINTS)
    assert complaints == []
    assert newest.facts["images"] == status.images
