"""Are wrong usages of real weak networks named? python benchmarks/diagnose_adapters.py

Networks of benchmarks/weak_networks.py, each used right and wrong: `verdict` is what jstar says,
`named` whether it is what was done. Writes diagnose_adapters.csv.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from weak_networks import KINDS, load

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.diagnose.adapters import Adapter, discrete, dit, preconditioned, sit
from jstar.diagnose.readings import COSINE, SD, TABLES, ddpm_sigmas
from jstar.diagnose.sample import Sample, take_sample
from jstar.diagnose.solver import identify
from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Usage:
    """What somebody may write. words: all must be in the reading or the problem; none: right."""

    network: str
    does: str
    adapter: Adapter
    words: tuple[str, ...] = ()


def wide(s: Tensor) -> Tensor:
    return s.reshape(-1, 1, 1, 1)


def by_hand(function: Callable[[Tensor, Tensor], Tensor]) -> Adapter:
    """A function (x, sigma) -> x0, as a user writes it."""
    return Adapter("by hand", lambda x, s, y: function(x, s))


def standardised(right: Adapter, sample: Sample) -> Adapter:
    """Asked for images of zero mean and unit variance, by a network of -1..1."""
    m, s = sample.level, sample.spread
    return by_hand(lambda x, sigma: right.denoise((x - m) / s, sigma / s, None) * s + m)


def eps_usages(net: nn.Module) -> Iterator[Usage]:
    sigma_T = ddpm_sigmas()
    right = discrete(net, sigma_T)
    usage = lambda *rest: Usage("eps-unet", *rest)  # noqa: E731
    yield usage("right", right)
    yield usage("right, by hand", by_hand(lambda x, s: right.denoise(x, s, None)))
    yield usage("one step late, which costs nothing",
                discrete(lambda x, t: net(x, t + 1), sigma_T))  # fmt: skip
    yield usage("guided by 3 against a blank image",
                discrete(lambda x, t: 3 * net(x, t) - 2 * net(torch.zeros_like(x), t), sigma_T),
                ("guidance",))  # fmt: skip
    yield usage("as v", discrete(net, sigma_T, "v_prediction"), ("epsilon",))
    yield usage("as x0", discrete(net, sigma_T, "sample"), ("epsilon",))
    yield usage("sign flipped", discrete(lambda x, t: -net(x, t), sigma_T), ("minus epsilon",))
    yield usage("cosine schedule", discrete(net, TABLES[COSINE]), ("epsilon", "linear schedule"))
    yield usage("SD's schedule", discrete(net, TABLES[SD]), ("epsilon", "linear schedule"))
    yield usage("time reversed", discrete(lambda x, t: net(x, 999 - t), sigma_T), ("reversed",))
    yield usage("time over 1000", discrete(lambda x, t: net(x, 1000 * t), sigma_T), ("0 to 1",))
    yield usage("as flow matching", preconditioned(net, "fm"),
                ("epsilon", "sqrt(1 + sigma^2)", "linear schedule"))  # fmt: skip
    yield usage("as EDM", preconditioned(net, "edm"), ("epsilon", "sqrt(1 + sigma^2)"))
    yield usage("returns the noise",
                by_hand(lambda x, s: (x - right.denoise(x, s, None)) / wide(s)),
                ("predicts epsilon",))  # fmt: skip
    yield usage("taken for v, by hand",
                by_hand(lambda x, s: discrete(net, sigma_T, "v_prediction").denoise(x, s, None)),
                ("epsilon (taken for v)",))  # fmt: skip
    yield usage("bare network", by_hand(net), ("epsilon", "sqrt(1 + sigma^2)", "linear schedule"))
    yield usage("asked in 0..1",
                by_hand(lambda x, s: right.denoise((x + 1) / 2, s / 2, None) * 2 - 1),
                ("times 2, less 1",))  # fmt: skip


def edm_usages(net: nn.Module, sample: Sample) -> Iterator[Usage]:
    right = preconditioned(net, "edm")
    usage = lambda *rest: Usage("edm-unet", *rest)  # noqa: E731
    yield usage("right", right)
    yield usage("right, by hand", by_hand(lambda x, s: right.denoise(x, s, None)))
    yield usage("as vp", preconditioned(net, "vp"), ("EDM's F", "ln(sigma) / 4"))
    yield usage("as v", preconditioned(net, "v"), ("EDM's F", "ln(sigma) / 4"))
    yield usage("as ve", preconditioned(net, "ve"), ("EDM's F", "ln(sigma) / 4"))
    yield usage("as fm", preconditioned(net, "fm"), ("EDM's F", "ln(sigma) / 4"))
    yield usage("sign flipped", preconditioned(lambda x, t: -net(x, t), "edm"), ("minus EDM",))
    yield usage("bare network", by_hand(net), ("EDM's F", "ln(sigma) / 4"))
    yield usage("told ln(sigma)", preconditioned(lambda x, t: net(x, t / 4), "edm"),
                ("its time is ln(sigma), not",))  # fmt: skip
    yield usage("told ln(sigma^2) / 4", preconditioned(lambda x, t: net(x, 2 * t), "edm"),
                ("its time is",))  # fmt: skip
    yield usage("sigma_data of 1", preconditioned(net, "edm", sigma_data=1.0),
                ("sigma_data is 0.5",))  # fmt: skip
    yield usage("standardised data", standardised(right, sample), ("turned to -1..1",))
    m, s = sample.level, sample.spread
    yield usage("standardised, and not turned back",
                by_hand(lambda x, sigma: right.denoise((x - m) / s, sigma / s, None)),
                ("unit variance",))  # fmt: skip
    yield usage("data twice as large",
                by_hand(lambda x, s: 2 * right.denoise(x / 2, s / 2, None)),
                ("times 2",))  # fmt: skip
    yield usage("data half as large",
                by_hand(lambda x, s: right.denoise(2 * x, 2 * s, None) / 2),
                ("times 1/2",))  # fmt: skip
    yield usage("output in 0..1", by_hand(lambda x, s: (right.denoise(x, s, None) + 1) / 2),
                ("x0 in 0..1",))  # fmt: skip
    yield usage("sigma fixed",
                by_hand(lambda x, s: right.denoise(x, torch.full_like(s, 0.5), None)),
                ("sigma is ignored",))  # fmt: skip


def flow_usages(net: nn.Module, sample: Sample) -> Iterator[Usage]:
    right = preconditioned(net, "fm")
    usage = lambda *rest: Usage("flow-dit", *rest)  # noqa: E731
    yield usage("right", right)
    yield usage("right, by hand", by_hand(lambda x, s: right.denoise(x, s, None)))
    yield usage("as SiT", sit(net), ("from 0 to 1", "velocity"))
    yield usage("sign flipped", preconditioned(lambda x, t: -net(x, t), "fm"), ("minus velocity",))
    yield usage("time reversed", preconditioned(lambda x, t: net(x, 1 - t), "fm"), ("reversed",))
    yield usage("time times 1000", preconditioned(lambda x, t: net(x, t / 1000), "fm"),
                ("in steps",))  # fmt: skip
    yield usage("time shifted by 3", preconditioned(lambda x, t: net(x, 3 * t / (1 + 2 * t)), "fm"),
                ("shift 1/3",))  # fmt: skip
    yield usage("standardised data", standardised(right, sample), ("turned to -1..1",))
    yield usage("as DiT", dit(net), ("velocity", "x / (1 + sigma)"))
    yield usage("as EDM", preconditioned(net, "edm"), ("velocity", "x / (1 + sigma)"))
    yield usage("as v", preconditioned(net, "v"), ("velocity", "x / (1 + sigma)"))
    yield usage("bare network", by_hand(net), ("velocity", "x / (1 + sigma)"))
    yield usage("returns the velocity",
                by_hand(lambda x, s: net(x / (1 + wide(s)), s / (1 + s))),
                ("predicts velocity",))  # fmt: skip
    yield usage("time reversed, by hand",
                by_hand(lambda x, s: (x - wide(s) * net(x / (1 + wide(s)), 1 / (1 + s)))
                        / (1 + wide(s))), ("reversed",))  # fmt: skip
    yield usage("forgot to scale the input",
                by_hand(lambda x, s: (x - wide(s) * net(x, s / (1 + s))) / (1 + wide(s))),
                ("x / (1 + sigma)",))  # fmt: skip


def other_usages(nets: dict[str, nn.Module]) -> Iterator[Usage]:
    v, unit = nets["v-unet"], nets["eps-unet-unit"]
    yield Usage("v-unet", "right", preconditioned(v, "v"))
    yield Usage("v-unet", "as vp", preconditioned(v, "vp"), ("predicts v",))
    yield Usage("v-unet", "time reversed", preconditioned(lambda x, t: v(x, 1 - t), "v"),
                ("reversed",))  # fmt: skip
    yield Usage("eps-unet-unit", "lives in 0..1", discrete(unit, ddpm_sigmas()), ("0..1",))
    sigma_T = ddpm_sigmas()
    in_unit = discrete(unit, sigma_T)
    right = by_hand(lambda x, s: 2 * in_unit.denoise((x + 1) / 2, s / 2, None) - 1)
    yield Usage("eps-unet-unit", "right, by hand", right)


def usages(work: Path, sample: Sample) -> Iterator[Usage]:
    nets = {name: load(name, work) for name in KINDS if (work / f"{name}.pt").is_file()}
    yield from eps_usages(nets["eps-unet"])
    yield from edm_usages(nets["edm-unet"], sample)
    yield from flow_usages(nets["flow-dit"], sample)
    if {"v-unet", "eps-unet-unit"} <= set(nets):
        yield from other_usages(nets)


def row(usage: Usage, sample: Sample) -> dict[str, object]:
    """What is said of one usage. No words: right is right; unsure accuses nobody."""
    found = identify(replace(usage.adapter, name=usage.does), sample)
    text = f"{found.reading}; {' '.join(found.problems)}"
    meant = all(word in text for word in usage.words)
    wrong = found.verdict == "wrong"
    return {
        "network": usage.network, "usage": usage.does, "is": "wrong" if usage.words else "right",
        "verdict": found.verdict, "named": (wrong and meant) if usage.words else not wrong,
        "says": " ".join(found.problems) or found.reading,
    }  # fmt: skip


def main(images: Path, work: Path, out: Path) -> None:
    torch.set_num_threads(1)
    folder = work / "data"
    if not (folder / "card.json").is_file():
        config = {"name": "first-4000", "source": "npz", "path": str(images), "limit": 4000}
        prepare(DatasetConfig.checked(config, "diagnose_adapters"), folder)
    sample = take_sample(open_dataset(folder), conditional=False)
    rows = []
    for usage in usages(work, sample):
        rows.append(row(usage, sample))
        print(*list(rows[-1].values()), sep=" | ", file=sys.stderr, flush=True)
    frame = pd.DataFrame(rows)
    wrong = frame[frame["is"] == "wrong"]
    accused = frame[(frame["is"] == "right") & (frame["verdict"] == "wrong")]
    facts = {"wrong_usages": len(wrong), "named": int(wrong["named"].sum()),
             "false_accusations": len(accused)}  # fmt: skip
    print(facts)
    write_table(out / "diagnose_adapters.csv", frame, provenance(**facts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="fashion-mnist-train.npz")
    parser.add_argument("--work", type=Path, required=True, help="of weak_networks.py")
    parser.add_argument("--out", type=Path, default=ROOT / "results/reference/benchmarks")
    asked = parser.parse_args()
    main(asked.images, asked.work, asked.out)
