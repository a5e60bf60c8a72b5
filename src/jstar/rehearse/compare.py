"""What was planned beside what was measured: tolerances, verdicts and what to change."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jstar.hardware import GIB
from jstar.rehearse.orders import GoldenReport, ResumeReport, TrainReport
from jstar.train.footprint import MARGIN


@dataclass(frozen=True)
class Tolerance:
    """Allowed are planned x low to planned x high + slack, in the quantity's unit."""

    low: float
    high: float
    slack: float = 0.0


# Of a GPU the plan is a count and a roofline; of a CPU its speed is a guess, and what torch loads
# on the way counts as memory.
SPEED = {"cuda": Tolerance(1 / 1.3, 1.5), "cpu": Tolerance(1 / 20, 8.0)}
MEMORY = {"cuda": Tolerance(0.75, MARGIN), "cpu": Tolerance(0.0, 1.5, 2**28)}
EVALUATION = {"cuda": Tolerance(0.2, 1.5), "cpu": Tolerance(1 / 8, 20.0)}
SAVE_SECONDS = Tolerance(0.0, 1.5, 1.0)  # one that is faster costs nothing
BYTES = Tolerance(0.98, 1.02, 2**18)  # names and telemetry lie beside the weights
LOSS = {"fp32": 1e-4, "bf16": 1e-2}  # relative, against float32 on a CPU
NORM = {"fp32": 1e-3, "bf16": 3e-2}  # of the gradient

OK, OFF, KNOWN = "ok", "OFF", "-"  # the last: nothing was planned


@dataclass(frozen=True)
class Row:
    """One quantity of one size. `fault`: a sentence where it is off."""

    size: str
    quantity: str
    unit: str
    planned: float | None
    measured: float
    verdict: str
    fault: str = ""

    @property
    def line(self) -> str:
        """As it is printed."""
        planned = "-" if self.planned is None else f"{self.planned:,.4g}"
        ratio = f"{self.measured / self.planned:,.4g}" if self.planned else "-"
        what = f"{self.quantity}{f', {self.unit}' if self.unit else ''}"
        return (
            f"{self.size:<12}{what:<26}{planned:>14}{self.measured:>14,.4g}{ratio:>9}  "
            f"{self.verdict}"
        )


HEAD = f"{'size':<12}{'quantity':<26}{'planned':>14}{'measured':>14}{'ratio':>9}  verdict"


@dataclass(frozen=True)
class Planned:
    """What the plan says of a size on the hardware at hand; None where it says nothing."""

    images_per_second: float | None
    memory: float
    save_seconds: float
    save_bytes: float
    snapshot_bytes: float
    evaluate_seconds: float | None  # of one network


def weigh(
    size: str, quantity: str, unit: str, planned: float | None, measured: float,
    allowed: Tolerance, advice: tuple[str, str],
) -> Row:  # fmt: skip
    """A row; `advice` is what to change where it is lower, and where it is higher than planned."""
    if planned is None:
        return Row(size, quantity, unit, None, measured, KNOWN)
    low, high = allowed.low * planned, allowed.high * planned + allowed.slack
    if low <= measured <= high:
        return Row(size, quantity, unit, planned, measured, OK)
    less = measured < low
    times = planned / measured if less and measured else measured / planned if planned else math.inf
    fault = (
        f"{size}: {quantity} is {measured:,.4g} {unit} where {planned:,.4g} were planned, "
        f"{times:.3g} times {'less' if less else 'more'}; {advice[0] if less else advice[1]}"
    )
    return Row(size, quantity, unit, planned, measured, OFF, fault)


def train_rows(size: str, planned: Planned, found: TrainReport) -> Iterator[Row]:
    """Memory, speed, compiling, checkpoint and snapshot."""
    kind = found.device
    if found.memory is not None:
        scale, unit = (GIB, "GiB") if kind == "cuda" else (2**20, "MiB")
        allowed = MEMORY[kind]
        allowed = Tolerance(allowed.low, allowed.high, allowed.slack / scale)
        more = "set train.microbatch lower or train.activation_checkpointing: true"
        if kind == "cpu":
            more += ", or resources.train_mem_mb higher"
        yield weigh(
            size, "memory", unit, planned.memory / scale, found.memory / scale, allowed,
            ("a larger train.microbatch would fit", more),
        )  # fmt: skip
    yield weigh(
        size, "speed", "images/s", planned.images_per_second, found.images_per_second, SPEED[kind],
        (
            "plan with what was measured (jstar plan now does), shorten train.images, or look for "
            "what else uses this machine",
            "plan with what was measured, jstar plan now does",
        ),
    )  # fmt: skip
    yield Row(size, "compiling", "s", None, found.compile_seconds, KNOWN)
    yield weigh(
        size, "checkpoint time", "s", planned.save_seconds, found.save_seconds, SAVE_SECONDS,
        ("", "set resources.disk_gb_per_second lower, or --results to a faster disk"),
    )  # fmt: skip
    sizes = (
        ("checkpoint", planned.save_bytes, found.save_bytes),
        ("snapshot", planned.snapshot_bytes, found.snapshot_bytes),
    )
    for what, wanted, seen in sizes:
        allowed = Tolerance(BYTES.low, BYTES.high, BYTES.slack / 1e6)
        again = "report it: the count of the state is wrong"
        yield weigh(size, f"{what} size", "MB", wanted / 1e6, seen / 1e6, allowed, (again, again))
    yield Row(size, "snapshot time", "s", None, found.snapshot_seconds, KNOWN)


def loss_rows(size: str, precision: str, found: GoldenReport, norm: float | None) -> Iterator[Row]:
    """First losses and gradient norm against float32 on a CPU, relative."""
    of = "" if found.whole else f" of {found.images} images"
    pairs = list(zip(found.loss, found.measured, strict=True))
    for k, (golden, seen) in enumerate(pairs):
        yield _near(size, f"loss {k + 1}{of}", golden, seen, LOSS[precision], precision)
    if found.gradient_norm is not None:
        seen = math.nan if norm is None else norm
        yield _near(size, "gradient norm", found.gradient_norm, seen, NORM[precision], precision)


def _near(
    size: str, what: str, golden: float, seen: float, allowed: float, precision: str
) -> Row:  # fmt: skip
    off = abs(seen - golden) / abs(golden) if golden else math.inf
    if off <= allowed:  # false for NaN
        return Row(size, what, "", golden, seen, OK)
    remedy = "train.precision: fp32" if precision == "bf16" else "train.compile: false"
    fault = (
        f"{size}: {what} is {seen:.6g} where float32 on a CPU gives {golden:.6g}, off by "
        f"{off:.2%} of it, {allowed:.2%} are allowed; do not train before {remedy} or another "
        "version of torch or of the driver mends it"
    )
    return Row(size, what, "", golden, seen, OFF, fault)


def resume_row(
    size: str, found: ResumeReport, told: TrainReport, *, claimed: bool, allowed: float
) -> Row:
    """Tensors of the state that differ after a kill; `claimed`: that none does."""
    names = sorted({*told.digests, *found.digests})
    apart = [n for n in names if told.digests.get(n) != found.digests.get(n)]
    what = "tensors apart after a kill"
    last = told.losses[-1]
    near = (
        found.loss is not None
        and last is not None
        and abs(found.loss - last) <= allowed * abs(last)
    )
    if not apart or (not claimed and near):
        return Row(size, what, "", 0.0, float(len(apart)), OK if not apart else "ok (not claimed)")
    seen = "no loss" if found.loss is None else f"{found.loss:.6g}"
    before = "no loss" if last is None else f"{last:.6g}"
    advice = "do not rely on resuming" if claimed else "set train.deterministic: true to find out"
    fault = (
        f"{size}: {len(apart)} of {len(names)} tensors differ after a kill and a resume (first "
        f"'{apart[0]}'), loss {seen} against {before}; {advice}"
    )
    return Row(size, what, "", 0.0, float(len(apart)), OFF, fault)


def evaluate_row(size: str, kind: str, planned: Planned, seconds: float) -> Row:
    """Seconds of one network."""
    advice = "plan with what was measured, jstar plan now does"
    return weigh(
        size, "evaluating a network", "s", planned.evaluate_seconds, seconds, EVALUATION[kind],
        (advice, f"{advice}; raise evaluate.shards or resources.evaluate_minutes"),
    )  # fmt: skip
