"""Writers of the formats that prepare reads, as the originals are laid out."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02105855")


def pictures(count, side=8, channels=3, seed=0):
    """uint8 [N, H, W, C], all different."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def encoded(pixels_HWC, kind="PNG", **options):
    image = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_zip(path, files, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar_bytes(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def write_idx(folder, images_NHW, labels_N, packed=True):
    """MNIST's pair of files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "train-images-idx3-ubyte": struct.pack(">IIII", 0x803, *images_NHW.shape)
        + images_NHW.tobytes(),
        "train-labels-idx1-ubyte": struct.pack(">II", 0x801, len(labels_N))
        + labels_N.astype(np.uint8).tobytes(),
    }
    for name, data in parts.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
        else:
            (folder / name).write_bytes(data)
    return folder


def cifar_batches(images_NHWC, labels_N, kind):
    """{file name: content} of the five batches, planar as the originals."""
    planar = images_NHWC.transpose(0, 3, 1, 2).reshape(len(images_NHWC), -1)
    files = {}
    for n, rows in enumerate(np.array_split(np.arange(len(planar)), 5), 1):
        if kind == "binary":
            labels = labels_N[rows].astype(np.uint8)[:, None]
            files[f"cifar-10-batches-bin/data_batch_{n}.bin"] = np.hstack(
                [labels, planar[rows]]
            ).tobytes()
        else:
            batch = {b"data": planar[rows], b"labels": [int(v) for v in labels_N[rows]]}
            files[f"cifar-10-batches-py/data_batch_{n}"] = pickle.dumps(batch, protocol=2)
    # The original archive has its members in another order than their numbers.
    return dict(sorted(files.items(), key=lambda item: item[0][::-1]))


def write_parquet(path, files, labels):
    arrow = __import__("pytest").importorskip("pyarrow")
    import pyarrow.parquet as parquet

    cells = [{"bytes": data, "path": name} for name, data in files.items()]
    table = arrow.table({"image": cells, "label": [int(v) for v in labels]})
    parquet.write_table(table, path, row_group_size=5)
    return path


def write_edm2(path, files, labels):
    index = {"labels": [[name, int(label)] for name, label in zip(files, labels, strict=True)]}
    return write_zip(path, {**files, "dataset.json": json.dumps(index).encode()})


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def write_downsampled(folder: Path, images_NHWC, labels_N, batches=11):
    """Batches 1..11: read by their names they would come in another order."""
    folder.mkdir(parents=True, exist_ok=True)
    planar = images_NHWC.transpose(0, 3, 1, 2).reshape(len(images_NHWC), -1)
    for n, rows in enumerate(np.array_split(np.arange(len(planar)), batches), 1):
        np.savez(
            folder / f"train_data_batch_{n}.npz",
            data=planar[rows], labels=labels_N[rows] + 1, mean=planar.mean(axis=0),
        )  # fmt: skip
    return folder
