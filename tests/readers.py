"""Small whole files of every kind that is read, and mutants of them from fixed seeds."""

import json
import signal
from contextlib import contextmanager
from pathlib import Path

import formats
import numpy as np

from jstar.config import DatasetConfig
from jstar.curve import read_curve
from jstar.data.card import Card
from jstar.data.sources import present
from jstar.data.store import open_dataset
from jstar.errors import JstarError
from jstar.figures.tables import load_tables
from jstar.optimal.oracle import open_oracle
from jstar.records import read_any_table
from jstar.scaling.inputs import read_losses
from jstar.train.checkpoint import load_newest
from jstar.train.snapshots import list_cooldowns, load_network, run_process, stored_averages

SECONDS = 10  # more is a hang


def without_records(folder):
    """As anybody's files: nothing to hold a mutant to, so that the readers themselves are tried."""
    for path in folder.rglob("*.json"):
        facts = json.loads(path.read_text())
        if isinstance(facts, dict):
            for name in ("made", "seal", "sha256", "holdout_sha256"):
                facts.pop(name, None)
            path.write_text(json.dumps(facts))


def read_source(path, source, **keys):
    """Open a source and read all of it, as prepare does."""
    config = DatasetConfig(name="toy", source=source, path=str(path), **keys)
    opened = present(config).open(config)
    opened.labels()
    for job in opened.jobs(0, opened.count, 8):
        rows = job()
        if opened.finish:
            opened.finish(rows)


def read_run(run):
    list_cooldowns(run)
    run_process(run)
    load_network(run, 1, stored_averages(run, 1).lengths[0])


def read_checkpoint(folder):
    """A damaged one is passed over with a sentence."""
    load_newest(folder)


IMAGES = formats.pictures(6, 8)
PNGS = {f"{k % 2}/{k}.png": formats.encoded(image) for k, image in enumerate(IMAGES)}


def write_npz(folder):
    np.savez(folder / "a.npz", images=IMAGES, labels=np.arange(6) % 2)
    return folder / "a.npz"


def write_idx(folder):
    """Two files of the MNIST family, in a folder."""
    for name, array in (("train-images-idx3-ubyte", IMAGES[..., 0]),
                        ("train-labels-idx1-ubyte", np.arange(6, dtype=np.uint8) % 2)):  # fmt: skip
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (folder / name).write_bytes(head + array.tobytes())
    return folder / "train-images-idx3-ubyte"


SOURCES = {
    "npz": (write_npz, lambda f: read_source(f / "a.npz", "npz")),
    "zip": (
        lambda f: formats.write_zip(f / "a.zip", PNGS),
        lambda f: read_source(f / "a.zip", "images"),
    ),
    "tar": (
        lambda f: formats.write_tar(f / "a.tar", PNGS),
        lambda f: read_source(f / "a.tar", "images"),
    ),
    "image": (
        lambda f: formats.write_folder(f, PNGS) / "0/0.png",
        lambda f: read_source(f, "images"),
    ),
    "idx": (write_idx, lambda f: read_source(f, "mnist")),
}  # fmt: skip


def readers(place):
    """name -> (file, what reads it), of a copy of a finished study without its records."""
    root, layout = place.folder / "results", place.layout
    without_records(root)
    data, run = layout.data, layout.run("d1", 0)
    checkpoints = layout.state("d1", 0) / "checkpoints"
    newest = sorted(checkpoints.glob("*.safetensors"))[-1]
    losses, curve, fits = layout.losses("d1", 0), layout.curve, layout.fits
    foreign = root / "semicolons.csv"
    foreign.write_text(losses.read_text().replace(",", ";").replace(".", ","))

    def figures():
        load_tables(fits, curve, None)

    def dataset():
        opened = open_dataset(data, "holdout")
        opened.scaled(np.arange(len(opened)))

    def oracle():
        open_oracle(layout.oracle).x0(open_dataset(data))

    return {
        "losses": (losses, lambda: read_losses([losses])),
        "record of losses": (losses.with_suffix(".json"), lambda: read_losses([losses])),
        "semicolons": (foreign, lambda: read_any_table(foreign, quiet=True)),
        "curve": (curve, lambda: read_curve(curve)),
        "record of the curve": (curve.with_suffix(".json"), lambda: read_curve(curve).total("edm")),
        "fits": (fits / "fits.csv", figures),
        "fits.json": (fits / "fits.json", figures),
        "card": (data / "card.json", lambda: (Card.load(data / "card.json"), dataset())),
        "held-out images": (data / "holdout_images.npy", dataset),
        "oracle": (layout.oracle / "oracle.json", oracle),
        "draws": (layout.oracle / "index.npy", oracle),
        "run": (run / "run.json", lambda: read_run(run)),
        "snapshot": (run / "snapshots/001.safetensors", lambda: read_run(run)),
        "checkpoint": (newest, lambda: read_checkpoint(checkpoints)),
        "marker": (newest.with_suffix(".json"), lambda: read_checkpoint(checkpoints)),
    }


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, cuts, zeros, doubled parts, numbers out of bounds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(data))))
        width = int(rng.integers(1, 1 + max(1, len(data) // 8)))
        how = rng.integers(0, 7)
        if how == 0 and data:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif how == 1:
            del data[at : at + width]
        elif how == 2:
            data[at : at + width] = bytes(len(data[at : at + width]))
        elif how == 3:
            data[at:at] = data[at : at + width]
        elif how == 4:
            del data[at:]
        elif how == 5:
            word = [b"1e999", b"-1", b"nan", b"999999999999999999999", b"null", b'""', b"[]", b"{}"]
            digits = [k for k in range(len(data)) if 48 <= data[k] <= 57]
            if digits:
                k = digits[int(rng.integers(0, len(digits)))]
                data[k : k + 1] = word[int(rng.integers(0, len(word)))]
        else:
            data[at : at + 1] = bytes(rng.integers(0, 256, 1, dtype=np.uint8))
    return bytes(data)


@contextmanager
def in_time():
    """A read that takes longer than `SECONDS` is an error, not a wait."""

    def ring(*_):
        raise TimeoutError(f"read for more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path, content: bytes, read) -> str:
    """Put the mutant in place and read it: `read`, or the sentence it is refused with."""
    path.unlink()
    path.write_bytes(content)
    try:
        with in_time():
            read()
    except JstarError as error:
        return str(error)
    return "read"
