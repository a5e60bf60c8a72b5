"""From a denoiser and images to a finding: what the command and `jstar.diagnose(...)` both do."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jstar.data import open_dataset
from jstar.diagnose.adapters import Adapter
from jstar.diagnose.floors import open_floors
from jstar.diagnose.generated import SampleOptions, open_target
from jstar.diagnose.images import collect, prepared_folder, write_images
from jstar.diagnose.oracle_draws import DrawOptions, Truth, open_held_out, open_truth, unseen_draws
from jstar.diagnose.prompts import Prompt, open_prompt
from jstar.diagnose.sample import take_sample
from jstar.diagnose.side_by_side import SideBySide, side_by_side, write_side_by_side
from jstar.diagnose.solver import identify
from jstar.diagnose.stage import Finding, Yardstick, check_first, find, write_finding
from jstar.errors import JstarError
from jstar.evaluate.losses import Denoiser
from jstar.noise import Process
from jstar.noise import process as named_process


def diagnose_files(adapter: Adapter, dataset: Path, out: Path, **options: Any) -> Finding:
    """Diagnose `adapter` on a dataset's files and write the result to `out`.

    options: of `_find_all`. Raises JstarError, and writes no result then.
    """
    found, truth = _find_all([adapter], dataset, out, **options)
    write_finding(found[0], truth, out)
    return found[0]


def compare_files(
    adapters: Sequence[Adapter], dataset: Path, out: Path, **options: Any
) -> SideBySide:
    """Diagnose several denoisers on the same draws; results in `out`/1, `out`/2 ... and `out`.

    options: of `_find_all`. Raises JstarError, and writes no result then.
    """
    named: list[Adapter] = []
    for adapter in adapters:
        same = sum(other.name.split(" #")[0] == adapter.name for other in named)
        named.append(replace(adapter, name=f"{adapter.name} #{same + 1}") if same else adapter)
    told = {adapter.name: options.get("conditional") or adapter.conditional for adapter in named}
    if len(set(told.values())) > 1:
        given = [name for name, labels in told.items() if labels]
        raise JstarError(
            f"diagnose: {', '.join(given)} are given labels and the others not; they are held "
            "against another J*, and cannot be compared"
        )
    found, truth = _find_all(named, dataset, out, **options)
    compared = side_by_side(found)
    for number, one in enumerate(found, start=1):
        write_finding(one, truth, out / str(number))
    write_side_by_side(compared, out)
    return compared


def _find_all(
    adapters: Sequence[Adapter],
    dataset: Path,
    out: Path,
    *,
    optimal: Path | None = None,
    held_out: Path | None = None,
    conditional: bool = False,
    process: Process | None = None,
    draws: DrawOptions | None = None,
    sample: SampleOptions | None = None,
    prompt: Prompt | None = None,
    batch: int = 256,
    device: str = "cpu",
) -> tuple[list[Finding], Truth]:
    """The findings of all, on the same draws.

    The order is that of the costs: every denoiser is called with two images before anything else,
    the adapters are identified before J* is computed. process: by default each adapter's own, of
    several the first's. sample: draw images and score them. prompt: given to every denoiser.
    """
    told = conditional or adapters[0].conditional
    plain = adapters
    if prompt is not None:
        adapters = [prompt.told_to(adapter, told) for adapter in plain]
    for adapter in adapters:
        check_first(adapter, dataset, out / "data", told, device)
    folder = prepared_folder(dataset, out / "data")
    data = open_dataset(folder)
    held = open_held_out(folder, held_out, data.card, prepared=out / "held_out")
    few = take_sample(data, told, device)
    if prompt is not None:
        adapters = [
            replace(heard, notes=(*heard.notes, *prompt.unheard(adapter, few)))
            for heard, adapter in zip(adapters, plain, strict=True)
        ]
    identified = [identify(adapter, few) for adapter in adapters]
    for one in identified:
        for problem in one.problems:
            print(f"Warning: {problem}", file=sys.stderr)
    target = None
    if sample is not None:
        target = open_target(data, held, sample, out / "features", device)
    kept = optimal or out / "optimal"
    truth = open_truth(
        folder, kept, prepared=out / "data", conditional=told, draws=draws or DrawOptions()
    )
    unseen = None if held is None else unseen_draws(held, truth)
    yardstick = Yardstick(truth, open_floors(data, truth, unseen, kept), unseen, target)
    chosen = process or adapters[0].process or named_process("edm")
    found = [
        find(adapter, one, yardstick, chosen, batch=batch, device=device)
        for adapter, one in zip(adapters, identified, strict=True)
    ]
    return found, truth


Denoisers = Sequence[Adapter | Denoiser] | Mapping[str, Adapter | Denoiser]


def diagnose_images(
    denoiser: Adapter | Denoiser | Denoisers,
    images: Any,
    *,
    labels: Any = None,
    held_out: Any = None,
    process: str | None = None,
    out: str | Path | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    sigmas: int | None = None,
    queries: int | None = None,
    seed: int | None = None,
    sample: int | None = None,
    features: str = "classifier",
    prompt: Any = None,
    batch: int = 256,
    device: str = "cpu",
) -> Finding | SideBySide:
    """`jstar.diagnose(denoiser, images)`: at which noise scales is a denoiser weak, and how?

    denoiser: an Adapter or a function (x [B, C, H, W], sigma [B], labels [B] or None) -> x0.
    A list of these, or a dict with their names, are compared side by side.
    images, held_out: a path (see `images_config`), an array or tensor [N, ...], a torch Dataset or
    DataLoader, or a Hugging Face dataset; uint8 become -1...1, floats stay as they are. labels
    [N]: given to the denoiser; True takes those of the images. process: whose weights make the
    total loss. sample: so many images are drawn and scored, by `features`: classifier, pixels or a
    TorchScript file. prompt: one embedding, [C] or [1, ...] or its file, given to the denoiser in
    the place of labels. out: folder that keeps what is computed; by default a temporary one.
    Returns a Finding, of several a SideBySide: both have .summary(), .plot() and .to_frame().
    Raises JstarError.
    """
    if isinstance(denoiser, Mapping):
        several: list[Adapter] | None = [
            replace(_as_adapter(one), name=str(name)) for name, one in denoiser.items()
        ]
    elif isinstance(denoiser, list | tuple):
        several = [_as_adapter(one) for one in denoiser]
    else:
        several = None
        denoiser = _as_adapter(denoiser)
    if several is not None and len(several) < 2:
        raise JstarError(f"denoiser: {len(several)} in the list, give at least two to compare")
    with tempfile.TemporaryDirectory(prefix="jstar-") as scratch:
        kept = Path(out) if out is not None else Path(scratch)
        told = None if labels is True else labels
        options: dict[str, Any] = {
            "held_out": None if held_out is None
            else _as_file(held_out, None, Path(scratch) / "held_out.npz"),
            "conditional": labels is not None and labels is not False,
            "process": None if process is None else named_process(process),
            "draws": DrawOptions(sigma_min, sigma_max, sigmas, queries, seed),
            "sample": None if sample is None else SampleOptions(sample, features),
            "prompt": None if prompt is None else open_prompt(prompt),
            "batch": batch,
            "device": device,
        }  # fmt: skip
        files = _as_file(images, told, Path(scratch) / "images.npz")
        if several is None:
            return diagnose_files(_as_adapter(denoiser), files, kept, **options)
        return compare_files(several, files, kept, **options)


def _as_adapter(denoiser: Any) -> Adapter:
    if isinstance(denoiser, Adapter):
        return denoiser
    if not callable(denoiser):
        raise JstarError(
            f"denoiser: is {type(denoiser).__name__}, allowed are an Adapter or a function "
            "(x, sigma, labels) -> x0, and a list or dict of these"
        )
    return Adapter(getattr(denoiser, "__name__", type(denoiser).__name__), denoiser)


def _as_file(images: Any, labels: Any, path: Path) -> Path:
    if isinstance(images, str | Path):
        if labels is not None:
            raise JstarError("labels: are read from the files of images; labels=True takes them")
        return Path(images)
    found, own = collect(images)
    return write_images(found, own if labels is None else labels, path)
