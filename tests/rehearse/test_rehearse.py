"""`jstar rehearse`: real processes on a CPU once, and then the same numbers made wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from jstar.config import Study
from jstar.data import prepare
from jstar.layout import Layout
from jstar.model import flops
from jstar.preflight import preflight
from jstar.records import read_json
from jstar.rehearse import Node, node, rehearse
from jstar.rehearse.compare import MEMORY, resume_row, train_rows, weigh
from jstar.rehearse.planned import planned_of
from jstar.rehearsed import Rehearsal, find_rehearsal, write_rehearsal

SMALL = {"patch": 2, "width_per_depth": 32, "head_width": 16}
HERE = Node(1, "cpu", 1)


def small(tiny_study, **changes):
    return tiny_study(model=SMALL, ladder=[{"name": "d2", "depth": 2}], **changes)


@pytest.fixture(scope="module")
def real(tmp_path_factory, request):
    """(study file, results, the finding, what the processes told, signals sent) of a real one."""
    folder = tmp_path_factory.mktemp("rehearse")
    tree = small(request.getfixturevalue("tiny_tree"))
    (folder / "study.yaml").write_text(yaml.safe_dump(tree))
    layout = Layout(Study.load(folder / "study.yaml"), folder / "results")
    prepare(layout.study.dataset, layout.data)
    told, sent, kill = [], [], os.killpg
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "killpg", lambda pid, number: (sent.append(number), kill(pid, number)))

    def measure(*given):
        told.append(node.measure_size(*given))
        return told[-1]

    try:
        found = rehearse(layout, HERE, 900.0, ["d2"], measure=measure)
    finally:
        patch.undo()
    return folder / "study.yaml", layout, found, told[0], sent


@pytest.fixture(scope="module")
def tiny_tree():
    def make(**overrides):
        tree = yaml.safe_load((ROOT / ".test/tiny.yaml").read_text())
        return {**tree, **overrides}

    return make


def test_a_small_study_passes(real):
    _, layout, found, told, sent = real
    assert (found.faults, found.late, found.notes) == ((), (), ())
    verdicts = {row.quantity: row.verdict for row in found.rows}
    assert verdicts["tensors apart after a kill"] == "ok"
    assert verdicts["speed"] == verdicts["memory"] == verdicts["gradient norm"] == "ok"
    assert verdicts["loss 1"] == verdicts["loss 2"] == "ok"
    assert "evaluating a network" in verdicts
    assert sent == [signal.SIGKILL]  # while it trained on: a process that had ended gets none
    assert told.resume.step == 2 + 3 * told.train.part_steps  # from there the killed one went on
    assert len(told.train.digests) > 50
    assert told.golden.whole
    assert abs(told.golden.loss[0] - told.golden.loss[1]) > 1e-5  # the weights were opened
    record = read_json(found.written[0])  # its seal is checked
    assert record["images"] == "prepared"
    assert record["images_per_second"] == told.train.images_per_second
    assert not list(layout.rehearsals.glob(".scratch-*"))


def test_two_processes_pass_each_with_its_part(tmp_path, tiny_tree, monkeypatch, jstar):
    """FSDP: inputs of both are compared, both are killed and go on, both write a checkpoint."""
    tree = small(tiny_tree)
    tree["train"] = tree["train"] | {"parallel": "fsdp", "microbatch": 24, "images": 6400}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    told, parts, measure, remove = [], [], node.measure_size, node.shutil.rmtree

    def listed(folder, **more):
        parts.extend(Path(folder).rglob("state/checkpoints/*.safetensors"))
        remove(folder, **more)

    monkeypatch.setattr(node, "measure_size", lambda *a: told.append(measure(*a)) or told[-1])
    monkeypatch.setattr(node.shutil, "rmtree", listed)
    command = [
        "rehearse", "--config", tmp_path / "study.yaml", "--results", tmp_path, "--device", "cpu",
        "--threads", 1, "--processes", 2,
    ]  # fmt: skip
    status, out, err = jstar(*command)
    assert status == 0, out + err
    assert "2 processes are here, a run of the study has 1: " in out
    (seen,) = told
    train, golden = seen.train, seen.golden
    assert train.world == 2
    assert train.cut["shard"]
    assert train.cut["microbatch"] == 24
    assert {part.name.split(".")[1] for part in parts} == {"0001-of-0002", "0002-of-0002"}
    assert train.save_bytes == pytest.approx(train.planned_save_bytes, rel=0.02)  # of both
    assert seen.resume.digests == train.digests
    assert golden.whole
    assert golden.images == 128  # 64 of each
    assert golden.measured == pytest.approx(golden.loss, rel=1e-5)
    tree["train"]["noise"] = {"law": "optimal_loss"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    status, out, _ = jstar(*command)
    assert status == 1
    said = out.splitlines()[-1]
    assert said.startswith("d2: train ended with status 1 (")
    assert "curve.csv: is not there, train.noise needs J*" in said  # not torchrun's last words


def wrong(told, **changes):
    """What the processes told, with other numbers."""
    golden = changes.pop("golden", {})
    train = replace(told.train, **changes)
    return replace(told, train=train, golden=replace(told.golden, **golden))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"images_per_second": 1e-3 * t.train.images_per_second}, r"speed is .* less;"),
        (lambda t: {"memory": 50 * 2**30}, r"memory is 5.12e\+04 MiB where .* times more"),
        (lambda t: {"save_seconds": 90.0}, r"checkpoint time is 90 s where"),
        (lambda t: {"save_bytes": 3 * t.train.save_bytes}, r"checkpoint size .* 3.01 times more"),
        (lambda t: {"gradient_norm": 1.1 * t.golden.gradient_norm}, r"gradient norm .* by 10.0"),
        (
            lambda t: {"golden": {"measured": [t.golden.loss[0], 1.01 * t.golden.loss[1]]}},
            r"loss 2 is .* off by 1.00% of it, 0.01% are allowed; do not train before",
        ),
        (
            lambda t: {"golden": {"measured": [float("nan"), t.golden.loss[1]]}},
            r"loss 1 is nan .* off by nan",
        ),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_found(real, tmp_path, monkeypatch, jstar, change, words):
    config, layout, _, told, _ = real
    monkeypatch.setattr(node, "measure_size", lambda *given: wrong(told, **change(told)))
    monkeypatch.setattr(Layout, "data", layout.data)
    # The plan goes by what was measured then, not by what a busier moment would guess.
    speed = 3 * flops(told.train.load(layout.study, "d2")[0].shape) * told.train.images_per_second
    tree = {**yaml.safe_load(config.read_text()), "resources": {"flops_per_second": speed}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    status, out, err = jstar(
        "rehearse", "--config", tmp_path / "study.yaml", "--results", tmp_path, "--device", "cpu",
        "--threads", 1,
    )  # fmt: skip
    assert status == 1, out + err
    said = [line for line in out.splitlines() if line.startswith("d2: ")]
    assert len(said) == 1
    assert re.search(words, said[0])
    assert sum(line.endswith("OFF") for line in out.splitlines()) == 1


def test_a_study_for_gpus_is_not_held_to_their_speed_on_a_cpu(real, tmp_path, monkeypatch):
    _, layout, _, told, _ = real
    gpus = layout.study.resources.model_copy(update={"train_gpus": 1, "flops_per_second": 3e14})
    study = layout.study.model_copy(update={"resources": gpus})
    monkeypatch.setattr(Layout, "data", layout.data)
    found = rehearse(Layout(study, tmp_path), HERE, 60.0, ["d2"], measure=lambda *given: told)
    assert found.faults == ()
    assert any("speed and evaluation are not compared" in note for note in found.notes)
    planned = {row.quantity: row.planned for row in found.rows}
    assert planned["speed"] is planned["evaluating a network"] is None
    assert None not in (planned["memory"], planned["checkpoint time"], planned["loss 1"])


def test_a_size_that_was_not_rehearsed_is_no_success(real, tmp_path, monkeypatch, jstar):
    """Six sizes of seven without a measurement ended with status 0."""
    config, layout, _, told, _ = real
    monkeypatch.setattr(node, "measure_size", lambda *given: replace(told, late=("evaluate",)))
    monkeypatch.setattr(Layout, "data", layout.data)
    status, out, err = jstar(
        "rehearse", "--config", config, "--results", tmp_path, "--device", "cpu", "--threads", 1
    )
    assert status == 1, out + err
    assert "not rehearsed: d2: evaluate did not fit into" in out


def test_a_state_that_differs_is_found(real):
    *_, told, _ = real
    name = sorted(told.resume.digests)[3]
    other = replace(told.resume, digests={**told.resume.digests, name: "0" * 64})
    row = resume_row("d2", other, told.train, claimed=True, allowed=1e-4)
    assert f"1 of {len(told.train.digests)} tensors differ after a kill" in row.fault
    assert f"'{name}'" in row.fault
    assert resume_row("d2", other, told.train, claimed=False, allowed=1e-4).fault == ""
    far = replace(other, loss=1.1 * told.resume.loss)
    assert "loss" in resume_row("d2", far, told.train, claimed=False, allowed=1e-4).fault


def test_plan_reads_what_was_measured(real, tmp_path, jstar):
    config, layout, _, told, _ = real
    before = jstar("plan", "--config", config, "--results", tmp_path, "--studies", 2)[1]
    assert "guessed: " in before
    after = jstar("plan", "--config", config, "--results", layout.root, "--studies", 2)[1]
    assert "speed measured by jstar rehearse." in after
    assert "guessed" not in after
    line = next(line for line in after.splitlines() if line.startswith("d2  "))
    assert line.split()[1] == f"{told.train.images_per_second:,.4g}"
    tree = yaml.safe_load(config.read_text())
    tree["train"]["batch"] = 32  # another run: what was measured says nothing of it
    assert find_rehearsal(replace(layout, study=Study.parse(tree)), "d2") is None
    tree["train"]["batch"] = 64
    tree["resources"] = {"train_threads": 2}
    assert find_rehearsal(replace(layout, study=Study.parse(tree)), "d2") is None


def test_of_gpus_only_the_same_kind_and_number_counts(tmp_path):
    tree = yaml.safe_load((ROOT / "config/imagenet64.yaml").read_text())
    tree["ladder"] = [{"name": "dit-596m"}]
    layout = Layout(Study.parse(tree), tmp_path)
    assert "measured" not in preflight(layout).text.split("\n", 1)[1]
    seen = Rehearsal("NVIDIA H200", 8, 2, 1234.0, 4e10, 60.0, 11.0, 1e10, 3.0, 2e9, 45.0)
    write_rehearsal(layout, "dit-596m", seen)
    write_rehearsal(layout, "dit-596m", replace(seen, kind="NVIDIA H100 80GB HBM3", processes=1))
    assert find_rehearsal(layout, "dit-596m") is None
    write_rehearsal(layout, "dit-596m", replace(seen, kind="NVIDIA H100 80GB HBM3"))
    text = preflight(layout).text
    row = next(line for line in text.splitlines() if line.startswith("dit-596m"))
    assert row.endswith("  measured")
    assert " 1,234 " in row
    assert " 11s" in row
    assert " 30:00" in row  # 40 snapshots of 45 seconds
    assert "save and evaluate of dit-596m" in text


def test_of_a_gpu_the_roofline_and_the_count_are_the_plan(real):
    """No GPU here: the numbers of the CPU, said to be one's."""
    _, layout, _, told, _ = real
    gpu = replace(told.train, device="cuda", kind="NVIDIA H100 80GB HBM3")
    planned = planned_of(layout.study, "d2", gpu)
    assert planned.images_per_second > 20 * told.train.images_per_second
    gpu = replace(gpu, images_per_second=planned.images_per_second, memory=planned.memory)
    assert [row.fault for row in train_rows("d2", planned, gpu) if row.fault] == []
    full = replace(
        gpu, memory=1.2 * planned.memory, images_per_second=planned.images_per_second / 2
    )
    faults = [row.fault for row in train_rows("d2", planned, full) if row.fault]
    assert [fault.split(" is ")[0] for fault in faults] == ["d2: memory", "d2: speed"]
    assert "1.2 times more; set train.microbatch lower" in faults[0]
    assert "2 times less" in faults[1]
    unknown = planned_of(layout.study, "d2", replace(gpu, kind="a card of tomorrow"))
    assert unknown.images_per_second is None


def test_the_tolerance_is_where_it_says():
    allowed = MEMORY["cuda"]
    advice = ("less", "more")
    for ratio, verdict in ((0.74, "OFF"), (0.76, "ok"), (1.04, "ok"), (1.06, "OFF")):
        assert weigh("d2", "memory", "GiB", 10.0, 10.0 * ratio, allowed, advice).verdict == verdict


def test_a_process_that_fails_and_too_little_time_are_said(tmp_path, tiny_study):
    tree = small(tiny_study, train={"images": 256, "first_snapshot": 64})  # 4 steps
    layout = Layout(Study.parse(tree), tmp_path)
    found = rehearse(layout, HERE, 300.0, ["d2"])
    assert len(found.faults) == 1
    assert "a run of 4 steps is too short to be rehearsed, at least 6 are needed" in found.faults[0]
    assert "is not prepared: 256 random images" in found.notes[0]
    found = rehearse(layout, HERE, 1.0, ["d2"])
    assert "train did not fit into 1 s" in found.late[0]
    assert "no size could be measured" in found.faults[0]


def test_fewer_processes_train_the_same_share(tiny_study):
    study = Study.parse(small(tiny_study, resources={"train_gpus": 8}))
    scaled, notes = node.here(study, Node(2, None, None))
    assert scaled.train_of("d2").batch == 16
    assert notes[0].startswith("2 processes are here, a run of the study has 8: ")
    assert "between the others" in notes[0]
    more = node.here(study, Node(16, None, None))[1]
    assert "between the others" not in more[0]
    assert json.loads(scaled.model_dump_json())["train"]["batch"] == 64
    assert node.here(study, Node(8, None, None)) == (study, [])


def test_what_killed_rehearsals_left_goes_and_a_living_one_stays(tmp_path, tiny_study):
    """After SIGTERM nothing stays; what SIGKILL leaves, the next one removes."""
    tree = small(tiny_study)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    layout = Layout(Study.parse(tree), tmp_path / "results")
    command = [
        sys.executable, "-m", "jstar", "rehearse", "--config", str(tmp_path / "study.yaml"),
        "--results", str(layout.root), "--device", "cpu", "--threads", "1",
    ]  # fmt: skip

    def scratch():
        return set(layout.rehearsals.glob(".scratch-*/*/orders.json"))

    def start(before):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            if scratch() - before:
                return process
            time.sleep(0.05)
        process.kill()
        raise AssertionError("it did not begin")

    killed = start(set())
    killed.kill()
    killed.wait()
    left = scratch()
    assert len(left) == 1
    living = start(left)
    mine = scratch()
    assert not mine & left
    asked = start(mine)
    assert mine < scratch()  # that of one that lives
    asked.terminate()
    assert asked.wait(30) == -signal.SIGTERM
    assert scratch() == mine
    living.terminate()
    assert living.wait(30) == -signal.SIGTERM
    assert list(layout.rehearsals.glob(".*")) == []
