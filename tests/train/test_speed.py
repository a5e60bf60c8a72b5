"""What a run's speed is measured against."""

import pytest
import torch

from jstar.config import Study
from jstar.train.parallel import Ranks
from jstar.train.speed import Speedometer


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "fp32", 67e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
    ],
)
def test_the_peak_is_that_of_all_devices_of_their_name(
    name, precision, peak, tiny_study, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    config = Study.parse(tiny_study(train={"precision": precision})).train
    assert Speedometer(1.0, Ranks(0, 8, torch.device("cuda", 0)), config).peak == 8 * peak


def test_an_unknown_device_has_no_peak_but_the_one_stated(tiny_study):
    ranks = Ranks(0, 1, torch.device("cpu"))
    config = Study.parse(tiny_study()).train
    assert Speedometer(1.0, ranks, config).peak != Speedometer(1.0, ranks, config).peak  # NaN
    stated = Study.parse(tiny_study(train={"peak_flops": 1e12})).train
    assert Speedometer(1.0, ranks, stated).peak == 1e12


def test_flops_per_second_and_mfu_follow_from_images_and_seconds(tiny_study):
    config = Study.parse(tiny_study(train={"peak_flops": 1e12})).train
    speed = Speedometer(5e9, Ranks(0, 1, torch.device("cpu")), config)
    for _ in range(2):
        speed.start()
        speed.step()
        speed.stop()
    speed.seconds = 4.0
    row = speed.record(400)
    assert (row.images_per_second, row.flops_per_second, row.mfu) == (100, 5e11, 0.5)
    speed.seconds = 5.0
    assert speed.record(450).images_per_second == 50
    assert row.peak_memory > 2**20


def test_the_wall_clock_time_is_told_apart_and_goes_on_after_a_restart(tiny_study, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("jstar.train.speed.time.perf_counter", lambda: clock[0])
    compiler = [5.0]  # before this run
    monkeypatch.setattr("jstar.train.speed._compiler_seconds", lambda: compiler[0])
    config, ranks = Study.parse(tiny_study()).train, Ranks(0, 1, torch.device("cpu"))

    def session(speed):
        clock[0] += 7  # start
        speed.start()
        compiler[0] += 2
        clock[0] += 30
        speed.stop()
        with speed.saving():
            clock[0] += 3
        return speed.record(100).wall_clock

    first = Speedometer(1.0, ranks, config)
    one = {"training": 28.0, "saving": 3.0, "compiling": 2.0, "waiting": 7.0}
    assert session(first) == one
    second = Speedometer(1.0, ranks, config)
    second.restore(first.facts())
    assert session(second) == {what: 2 * seconds for what, seconds in one.items()}
