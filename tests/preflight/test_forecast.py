"""What `jstar plan` says of GPUs that are not here, on the studies as they are shipped."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from jstar import pool
from jstar.config import Study
from jstar.hardware import GIB, find_gpu
from jstar.layout import Layout
from jstar.model import ladder
from jstar.preflight import preflight
from jstar.preflight.roofline import Machine, images_per_second, mfu, step_time
from jstar.train.footprint import Cut, Load

# How the studies were shipped at first: the whole share at once, images on every GPU.
FIRST = {
    "microbatch": 128, "activation_checkpointing": False, "parallel": "ddp", "resident": True,
    "ema": [0.05, 0.1],
}  # fmt: skip


@pytest.fixture(autouse=True)
def traced_once(monkeypatch):
    """Sizes are not traced by processes of their own, so that tests share what was traced."""
    monkeypatch.setattr(pool, "cpu_count", lambda: 1)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_a_study_of_scaling_has_six_sizes_or_more_and_a_plan(name, jstar, monkeypatch, tmp_path):
    """Of data that are not here. Of GPUs every other size is planned: each takes two seconds."""
    study = yaml.safe_load((ROOT / "config" / name).read_text())
    if study.get("kind", "scaling") == "scaling":
        assert len(study["ladder"]) >= 6
    if "train_gpus" in study.get("resources", {}):
        study["ladder"] = study["ladder"][1::2]
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(yaml.safe_dump(study))
    status, out, err = jstar("plan", "--config", name, "--studies", 2)
    assert status == 0, err
    assert "FLOPs" in out
    assert "hours" in out


def shipped(name, sizes, **changes):
    tree = yaml.safe_load((ROOT / "config" / name).read_text())
    tree["ladder"] = [entry for entry in tree["ladder"] if entry["name"] in sizes]
    for part, keys in changes.items():
        tree[part] = {**tree[part], **keys}
    return preflight(Layout(Study.parse(tree)))


@pytest.mark.parametrize("name", ["imagenet64.yaml", "imagenet512.yaml"])
def test_the_shipped_studies_fit_and_as_they_were_the_large_sizes_did_not(name):
    sizes = ("dit-596m", "dit-1.5b")
    now = shipped(name, sizes)
    assert now.faults == ()
    rows = [line.split() for line in now.text.splitlines() if line.startswith("dit-")]
    assert [row[0] for row in rows[:2]] == list(sizes)
    assert all(10 < float(row[1]) < 77 for row in rows[:2])
    assert "Computed, not measured" in now.text
    assert re.search(r"Computed for the whole study: [\d,]+ GPU-hours", now.text)
    before = shipped(name, sizes, train=FIRST)
    refused = [fault.split()[0] for fault in before.faults]
    assert refused == (["dit-1.5b"] if "64" in name else list(sizes))
    assert all("would fit" in fault for fault in before.faults)


def test_a_node_with_too_little_memory_is_refused():
    found = shipped("imagenet64.yaml", ("dit-596m",), resources={"train_mem_mb": 30000})
    assert len(found.faults) == 1
    assert "resources.train_mem_mb = 30000 is less" in found.faults[0]


def test_the_processes_of_a_node_share_its_disk_and_nodes_share_a_sharded_checkpoint():
    """Seconds of a save, percent of stall and GiB of a node's memory."""

    def saved(parallel, nodes):
        found = shipped(
            "imagenet64.yaml", ("dit-596m",), train={"parallel": parallel},
            resources={"train_nodes": nodes, "train_mem_mb": 10**6},
        )  # fmt: skip
        row = re.search(rf"{parallel}\S*\s+(?:recompute)?\s+(\d+)\s+(\d+)s\s+([\d.]+)%", found.text)
        return [float(number) for number in row.groups()]

    whole, one, two = saved("ddp", 1), saved("fsdp", 1), saved("fsdp", 2)
    assert whole[1] == one[1] == saved("ddp", 2)[1] > 10
    assert abs(two[1] - one[1] / 2) <= 1
    assert one[2] < whole[2]  # each GPU has its own link
    assert whole[0] == one[0] > two[0]


def test_a_study_on_cpus_has_no_preflight(tiny_study):
    assert preflight(Layout(Study.parse(tiny_study()))).text == ""


def test_plan_refuses_in_one_sentence(jstar, tmp_path):
    tree = yaml.safe_load((ROOT / "config/imagenet64.yaml").read_text())
    tree["ladder"] = [entry for entry in tree["ladder"] if entry["name"] == "dit-1.5b"]
    tree["train"] |= FIRST
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree))
    status, out, err = jstar("plan", "--config", tmp_path / "study.yaml")
    assert status == 2
    assert "study.yaml: dit-1.5b needs" in err.splitlines()[-1]
    assert "train.microbatch: 64" in err
    assert "Traceback" not in err
    assert "dit-1.5b-s0" in out  # what it would cost is said all the same


@pytest.fixture
def load(tiny_study):
    study = Study.parse(tiny_study(train={"batch": 64, "precision": "bf16"}))
    shape = ladder(4, shape=(3, 16, 16), patch=2, width=128)
    return Load("d4", shape, study.train, 4, 0.0, 0.0)


def test_the_roofline_adds_what_the_kernels_do(load):
    cut = Cut(16, recompute=False, shard=False, resident=False)
    machine = Machine("x", 1e9, 1e9, 1e9, 1e30, 2e9)
    cost, spent = load.cost(cut), step_time(load, cut, machine)
    assert spent.matrix == pytest.approx(cost.matrix / 1e9)
    assert spent.attention == pytest.approx(cost.attention / 1e9)
    assert spent.moved == pytest.approx(cost.moved / 1e9)
    assert spent.exchange == 0
    assert images_per_second(load, cut, machine) == pytest.approx(64 / spent.total)
    twice = step_time(load, replace(cut, microbatch=8), machine)
    # Twice as many passes over the weights' casts, the same over the images.
    assert spent.matrix < twice.matrix * 1.001
    assert spent.moved < twice.moved < 1.3 * spent.moved
    slow = step_time(load, cut, replace(machine, link=1.0))
    assert slow.exchange > 0.9 * 2 * 3 / 4 * 4 * 128**2 * 4  # bytes of a few matrices at 1 byte/s
    assert 0 < mfu(load, cut, machine) < 0.5


def test_cards_are_found_by_their_names():
    assert find_gpu("NVIDIA H100 80GB HBM3").name == "H100"
    assert find_gpu("NVIDIA H100 PCIe").name == "H100 PCIe"
    assert find_gpu("NVIDIA A100-SXM4-80GB").memory < 80 * GIB
    assert find_gpu("NVIDIA GeForce") is None
