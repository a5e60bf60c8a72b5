"""From a denoiser and images to a finding: what the command and `jstar.diagnose(...)` both do."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from jstar.data import open_dataset
from jstar.diagnose.adapters import Adapter
from jstar.diagnose.floors import open_floors
from jstar.diagnose.images import collect, prepared_folder, write_images
from jstar.diagnose.oracle_draws import DrawOptions, open_held_out, open_truth
from jstar.diagnose.sample import take_sample
from jstar.diagnose.solver import identify
from jstar.diagnose.stage import Finding, Yardstick, check_first, find, write_finding
from jstar.errors import JstarError
from jstar.evaluate.losses import Denoiser
from jstar.noise import Process
from jstar.noise import process as named_process


def diagnose_files(
    adapter: Adapter,
    dataset: Path,
    out: Path,
    *,
    optimal: Path | None = None,
    held_out: Path | None = None,
    conditional: bool = False,
    process: Process | None = None,
    draws: DrawOptions | None = None,
    batch: int = 256,
    device: str = "cpu",
) -> Finding:
    """Diagnose `adapter` on a dataset's files and write the result to `out`.

    The order is that of the costs: the denoiser is called with two images before anything else,
    its adapter is identified before J* is computed. Raises JstarError, and writes no result then.
    """
    told = conditional or adapter.conditional
    check_first(adapter, dataset, out / "data", told, device)
    folder = prepared_folder(dataset, out / "data")
    data = open_dataset(folder)
    identified = identify(adapter, take_sample(data, told, device))
    for problem in identified.problems:
        print(f"Warning: {problem}", file=sys.stderr)
    kept = optimal or out / "optimal"
    truth = open_truth(
        folder, kept, prepared=out / "data", conditional=told, draws=draws or DrawOptions()
    )
    held = open_held_out(folder, held_out, truth, prepared=out / "held_out")
    yardstick = Yardstick(truth, open_floors(data, truth, held, kept), held)
    chosen = process or adapter.process or named_process("edm")
    finding = find(adapter, identified, yardstick, chosen, batch=batch, device=device)
    write_finding(finding, truth, out)
    return finding


def diagnose_images(
    denoiser: Adapter | Denoiser,
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
    batch: int = 256,
    device: str = "cpu",
) -> Finding:
    """`jstar.diagnose(denoiser, images)`: at which noise scales is a denoiser weak, and how?

    denoiser: an Adapter or a function (x [B, C, H, W], sigma [B], labels [B] or None) -> x0.
    images, held_out: a path (see `images_config`), an array or tensor [N, ...], a torch Dataset or
    DataLoader, or a Hugging Face dataset; uint8 become -1...1, floats stay as they are. labels
    [N]: given to the denoiser; True takes those of the images. process: whose weights make the
    total loss. out: folder that keeps what is computed; by default a temporary one.
    Returns a Finding with .summary(), .plot() and .to_frame(). Raises JstarError.
    """
    if not isinstance(denoiser, Adapter):
        if not callable(denoiser):
            raise JstarError(
                f"denoiser: is {type(denoiser).__name__}, allowed are an Adapter or a function "
                "(x, sigma, labels) -> x0"
            )
        denoiser = Adapter(getattr(denoiser, "__name__", type(denoiser).__name__), denoiser)
    with tempfile.TemporaryDirectory(prefix="jstar-") as scratch:
        kept = Path(out) if out is not None else Path(scratch)
        told = None if labels is True else labels
        return diagnose_files(
            denoiser,
            _as_file(images, told, Path(scratch) / "images.npz"),
            kept,
            held_out=None if held_out is None
            else _as_file(held_out, None, Path(scratch) / "held_out.npz"),
            conditional=labels is not None and labels is not False,
            process=None if process is None else named_process(process),
            draws=DrawOptions(sigma_min, sigma_max, sigmas, queries, seed),
            batch=batch,
            device=device,
        )  # fmt: skip


def _as_file(images: Any, labels: Any, path: Path) -> Path:
    if isinstance(images, str | Path):
        if labels is not None:
            raise JstarError("labels: are read from the files of images; labels=True takes them")
        return Path(images)
    found, own = collect(images)
    return write_images(found, own if labels is None else labels, path)
