"""Speed and memory of prepare: python benchmarks/data.py speed|memory|kills|latents [--json FILE].

speed    images/s of prepare against bare decoding with Pillow in as many processes, side by side;
         photographs of ImageNet's size (cropped to 64; also against decoding and cropping with
         ADM's own code) and 64x64 JPEG files
memory   peak memory of prepare on 1.28 million images: a zip of image files, .npz batches
kills    20 SIGKILLs at random moments; the result must be bit-identical
latents  the same 1,000 latents as EDM2, REPA, LightningDiT and fast-DiT write them: their cards and
         J*; also Gaussians beside one draw of each. --latents FILE: an .npz of `latents`, of unit
         scale, and `labels` (default: noise of unit scale)

JSTAR_BENCH_TMP is where the inputs are made (default: the system's temporary folder).
"""

import argparse
import concurrent.futures
import functools
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jstar.config import DatasetConfig
from jstar.data import open_dataset, prepare
from jstar.optimal import optimal_loss

IMAGENET_COUNT = 1_281_167
WORKERS = 2
SIGMAS, QUERIES, DEVIATION = [1.0, 4.0, 8.0, 20.0], 200, 0.03  # of latents
PAIRS = 11  # of bare and prepare, one after the other


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth colours with some texture; 500x375 is as many bytes as in ImageNet (about 108 KB)."""
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_photographs(path: Path, count: int, width: int, height: int) -> None:
    """A zip of `count` JPEG files in 10 classes, all different: duplicates cost a second look."""
    rng = np.random.default_rng(0)
    kinds = [np.asarray(picture(rng, width, height)) for _ in range(count if width <= 64 else 200)]
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(count):
            turned = np.roll(kinds[n % len(kinds)], n // len(kinds), axis=1)
            stream = io.BytesIO()
            Image.fromarray(turned).save(stream, "JPEG", quality=93)
            wnid = f"n{n * 10 // count:08d}"
            archive.writestr(f"{wnid}/{wnid}_{n}.JPEG", stream.getvalue())


# --- speed ----------------------------------------------------------------------------------------


def bare(job: tuple[str, list[str], int | None]) -> int:
    """What any program must do at least: read each file and decode it to an RGB array.

    With a size it is cropped as well, by ADM's code.
    """
    total = 0
    with zipfile.ZipFile(job[0]) as archive:
        for name in job[1]:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            total += np.asarray(adm_crop(image, job[2]) if job[2] else image).shape[0]
    return total


def adm_crop(image: Image.Image, size: int) -> Image.Image:
    """As in guided-diffusion's image_datasets.py."""
    while min(image.size) >= 2 * size:
        half = (image.width // 2, image.height // 2)
        image = image.resize(half, resample=Image.Resampling.BOX)
    factor = size / min(image.size)
    exact = (round(image.width * factor), round(image.height * factor))
    image = image.resize(exact, resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def cpu() -> float:
    """CPU seconds of this process and its ended children: a busy machine disturbs them less."""
    return sum(os.times()[:4])


def bare_seconds(path: Path, size: int | None = None) -> tuple[float, float]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    chunks = [(str(path), names[n::WORKERS], size) for n in range(WORKERS)]
    began, used = time.perf_counter(), cpu()
    with concurrent.futures.ProcessPoolExecutor(
        WORKERS, multiprocessing.get_context("fork")
    ) as pool:
        list(pool.map(bare, chunks))
    return time.perf_counter() - began, cpu() - used


def prepare_seconds(config: DatasetConfig, out: Path) -> tuple[float, float]:
    began, used = time.perf_counter(), cpu()
    prepare(config, out, workers=WORKERS)
    return time.perf_counter() - began, cpu() - used


def speed(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for title, count, width, height, size in (
        ("photographs 500x375 to 64", 4_000, 500, 375, 64),
        ("photographs 64x64", 40_000, 64, 64, None),
    ):
        path = folder / "speed.zip"
        write_photographs(path, count, width, height)
        source = "imagenet" if size else "images"
        config = DatasetConfig(name="bench", source=source, path=str(path), size=size)
        pairs = [
            (bare_seconds(path), prepare_seconds(config, folder / f"out{n}")) for n in range(PAIRS)
        ]
        ratios = sorted(a / b for (a, _), (b, _) in pairs)
        found[title] = {
            "images": count,
            "bare images/s": round(count / statistics.median(a for (a, _), _ in pairs)),
            "prepare images/s": round(count / statistics.median(b for _, (b, _) in pairs)),
            "speed of bare": round(statistics.median(ratios), 3),
            "CPU of bare": round(statistics.median(a / b for (_, a), (_, b) in pairs), 3),
            "range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
        if size:
            cropped = statistics.median(bare_seconds(path, size)[1] for _ in pairs)
            used = statistics.median(b for _, (_, b) in pairs)
            found[title]["CPU of bare and ADM's crop"] = round(cropped / used, 3)
        path.unlink()
    return found


# --- memory ---------------------------------------------------------------------------------------


def write_million_zip(path: Path, count: int) -> None:
    """An EDM2 dataset zip of `count` stored 8x8 PNG files: written by hand, zipfile keeps too much.

    The 64-bit end record is needed from 65,536 files on.
    """
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(256):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
        contents.append(stream.getvalue())
    labels = []
    with path.open("wb") as file, tempfile.TemporaryFile() as directory:
        for n in range(count + 1):
            if n < count:
                name, data = f"{n // 1000:05d}/img{n:08d}.png", contents[n % 256]
                labels.append([name, n % 1000])
            else:
                name, data = "dataset.json", json.dumps({"labels": labels}).encode()
                labels.clear()
            facts = struct.pack("<III", zlib.crc32(data), len(data), len(data))
            sizes = struct.pack("<HH", len(name), 0)
            at = file.tell()
            file.write(b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 0, 0, 0) + facts + sizes)
            file.write(name.encode() + data)
            directory.write(b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 0, 0, 0) + facts)
            directory.write(sizes + struct.pack("<HHHII", 0, 0, 0, 0, at) + name.encode())
        start, size = file.tell(), directory.tell()
        directory.seek(0)
        while block := directory.read(1 << 20):
            file.write(block)
        end = file.tell()
        total = count + 1
        file.write(b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, total, total, size,
                                               start))  # fmt: skip
        file.write(b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1))
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1,
                                               2**32 - 1, 0))  # fmt: skip


def write_batches(folder: Path, count: int, side: int) -> None:
    """Downsampled ImageNet's ten .npz batches, of noise, streamed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n, rows in enumerate(np.array_split(np.arange(count), 10), 1):
        with zipfile.ZipFile(folder / f"train_data_batch_{n}.npz", "w") as archive:
            with archive.open("data.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False,
                          "shape": (len(rows), 3 * side * side)}  # fmt: skip
                np.lib.format.write_array_header_1_0(stream, header)
                for at in range(0, len(rows), 10_000):
                    part = rows[at : at + 10_000]
                    stream.write(rng.bytes(len(part) * 3 * side * side))
            with archive.open("labels.npy", "w") as stream:
                np.save(stream, rows % 1000 + 1)


def child(config: dict[str, object], out: str) -> None:
    """Run prepare alone in this process and print seconds and peak memory in MiB."""
    began = time.perf_counter()
    card = prepare(DatasetConfig(**config), out, workers=WORKERS)  # type: ignore[arg-type]
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {"count": card.count, "seconds": seconds, "MiB": peaks[0], "MiB worker": peaks[1]}
        )
    )


def memory(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    million, batches = folder / "million.zip", folder / "batches"
    write_million_zip(million, IMAGENET_COUNT)
    write_batches(batches, IMAGENET_COUNT, 32)
    for title, source, path in (
        ("EDM2 zip of 1,281,167 PNG", "edm2", million),
        ("imagenet32 batches", "imagenet32", batches),
    ):
        config = {"name": "bench", "source": source, "path": str(path), "holdout": 10_000}
        run = subprocess.run(
            [sys.executable, __file__, "child", json.dumps(config), str(folder / source)],
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
        found[title] = {
            key: round(value, 1) for key, value in json.loads(run.stdout.splitlines()[-1]).items()
        }
    return found


# --- kills ----------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def kills(folder: Path) -> dict[str, object]:
    path = folder / "kills.zip"
    write_photographs(path, 40_000, 64, 64)
    config = DatasetConfig(name="bench", source="images", path=str(path), holdout=1000)
    fork = multiprocessing.get_context("fork")
    calm, _ = prepare_seconds(config, folder / "calm")
    moments, done = random.Random(0), []
    for _ in range(20):
        process = fork.Process(target=prepare, args=(config, folder / "killed"),
                               kwargs={"workers": WORKERS, "shard": 1000})  # fmt: skip
        process.start()
        process.join(moments.uniform(0, calm / 3))
        process.kill()
        process.join()
        journal = folder / "killed" / "partial" / "journal.json"
        done.append(json.loads(journal.read_text())["done"] if journal.exists() else None)
    prepare(config, folder / "killed", workers=WORKERS)
    return {
        "kills": len(done),
        "images safe after each": done,
        "bit-identical": content(folder / "killed") == content(folder / "calm"),
    }


# --- latents --------------------------------------------------------------------------------------


def latents(folder: Path, file: Path | None) -> dict[str, object]:
    """Cards and J* of the same latents in every layout, as the tests write them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))
    import formats

    rng = np.random.default_rng(0)
    unit, labels = rng.standard_normal((1000, 4, 16, 16)), np.arange(1000) % 10
    if file is not None:
        with np.load(file) as archive:
            unit, labels = archive["latents"].astype(np.float64), archive["labels"]
    stds = np.full_like(unit, DEVIATION)
    paths = formats.write_layouts(folder / "means", unit, labels, stds)
    found: dict[str, object] = {"images": len(unit), "sigmas": SIGMAS}
    for source, path in paths.items():
        posterior = "mean" if source in ("edm2", "repa") else "gaussian"
        found[source] = card_and_curve(folder, source, path, posterior)
    draws = unit + stds * rng.standard_normal(unit.shape)
    drawn = formats.write_fast_dit(folder / "drawn", draws, labels)
    for source, path in (("edm2", paths["edm2"]), ("repa", paths["repa"]), ("fast-dit", drawn)):
        title = f"{source}, deviation {DEVIATION}"
        found[title] = card_and_curve(folder, source, path, "gaussian")
    return found


def card_and_curve(folder: Path, source: str, path: Path, posterior: str) -> dict[str, object]:
    config = {"name": "bench", "source": source, "path": str(path), "posterior": posterior}
    out = folder / "out" / f"{source}-{posterior}-{path.name}"
    card = prepare(DatasetConfig(**config), out)  # type: ignore[arg-type]
    data = open_dataset(out)
    curve = optimal_loss(
        data.images_NCHW, SIGMAS, scale=card.scale, offset=card.offset, spread=data.stds_NCHW,
        queries=QUERIES,
    )  # fmt: skip
    return {
        "card": card.id,
        "J*": [float(f"{value:.6g}") for value in curve.loss],
        "standard error": [float(f"{value:.2g}") for value in curve.stderr],
    }


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        child(json.loads(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "memory", "kills", "latents"])
    parser.add_argument("--latents", type=Path, help="latents: an .npz of them")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("JSTAR_BENCH_TMP")) as name:
        measure = {
            "speed": speed, "memory": memory, "kills": kills,
            "latents": functools.partial(latents, file=arguments.latents),
        }[arguments.what]  # fmt: skip
        found = measure(Path(name))
    text = json.dumps({"command": f"python benchmarks/data.py {arguments.what}", **found}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
