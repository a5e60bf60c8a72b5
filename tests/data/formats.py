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


# --- latents, as their makers' tools write them ---------------------------------------------------


def moment_files(means_NCHW, stds_NCHW, labels_N):
    """{name: content} of EDM2's and of REPA's `encode`, at commits d8299d3 and 2b8c181."""
    files = {}
    for n, (mean, std) in enumerate(zip(means_NCHW, stds_NCHW, strict=True)):
        number = f"{n:08d}"
        both = np.concatenate([mean, std]).astype(np.float32)
        files[f"{number[:5]}/img-mean-std-{number}.npy"] = npy_bytes(both)
    pairs = [[name, int(label)] for name, label in zip(files, labels_N, strict=True)]
    return {**files, "dataset.json": json.dumps({"labels": pairs}).encode()}


def write_repa(folder, means_NCHW, stds_NCHW, labels_N):
    """The folder that REPA's dataset.py is given: images, and vae-sd."""
    grey = encoded(np.zeros((8, 8, 3), np.uint8))
    names = [f"{n:08d}"[:5] + f"/img{n:08d}.png" for n in range(len(labels_N))]
    pairs = [[name, int(label)] for name, label in zip(names, labels_N, strict=True)]
    images = dict.fromkeys(names, grey) | {"dataset.json": json.dumps({"labels": pairs}).encode()}
    moments = moment_files(means_NCHW, stds_NCHW, labels_N)
    tree = {f"images/{name}": data for name, data in images.items()}
    return write_folder(folder, tree | {f"vae-sd/{name}": data for name, data in moments.items()})


def write_lightningdit(folder, draws_NCHW, flips_NCHW, labels_N, mean_C, std_C, shards=2):
    """As LightningDiT's extract_features.py and its ImgLatentDataset, which adds the statistics."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for n, rows in enumerate(np.array_split(np.arange(len(labels_N)), shards)):
        arrays = {"latents": draws_NCHW, "latents_flip": flips_NCHW}
        tensors = {
            name: torch.from_numpy(array[rows].astype(np.float32)) for name, array in arrays.items()
        }
        tensors["labels"] = torch.from_numpy(labels_N[rows].astype(np.int64))
        facts = {"total_size": str(len(rows)), "dtype": "torch.float32", "device": "cpu"}
        save_file(tensors, folder / f"latents_rank00_shard{n:03d}.safetensors", metadata=facts)
    stats = {"mean": mean_C, "std": std_C}
    torch.save(
        {key: torch.tensor(value).float().reshape(1, -1, 1, 1) for key, value in stats.items()},
        folder / "latents_stats.pt",
    )
    return folder


def write_fast_dit(folder, draws_NCHW, labels_N):
    """As fast-DiT's extract_features.py: draws times 0.18215, a file an image, axis of one."""
    for name in ("imagenet256_features", "imagenet256_labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for n, (draw, label) in enumerate(zip(draws_NCHW, labels_N, strict=True)):
        np.save(folder / "imagenet256_features" / f"{n}.npy", draw[None].astype(np.float32))
        np.save(folder / "imagenet256_labels" / f"{n}.npy", np.array([label], np.int64))
    return folder


# Scales of the raw latents: training/encoders.py of EDM2, and train.py of REPA and fast-DiT.
EDM2_SHIFT = np.array([5.81, 3.25, 0.12, -2.15])[:, None, None]
EDM2_STD = np.array([4.17, 4.62, 3.71, 3.28])[:, None, None]
SD_STD = 1 / 0.18215


def write_layouts(folder, unit_NCHW, labels_N, stds_NCHW=None):
    """The four layouts of latents that are of unit scale here, each at its maker's: {source: path}.

    LightningDiT states its own mean and deviation, these are made up.
    """
    stds = np.full_like(unit_NCHW, 0.01) if stds_NCHW is None else stds_NCHW
    shift, spread = [0.5, 0, -1, 2], [2.0, 4, 1, 0.5]
    raw = unit_NCHW * np.array(spread)[:, None, None] + np.array(shift)[:, None, None]
    edm2 = moment_files(unit_NCHW * EDM2_STD + EDM2_SHIFT, stds * EDM2_STD, labels_N)
    return {
        "edm2": write_folder(folder / "edm2", edm2),
        "repa": write_repa(folder / "repa", unit_NCHW * SD_STD, stds * SD_STD, labels_N),
        "lightningdit": write_lightningdit(
            folder / "lightningdit", raw, raw[..., ::-1].copy(), labels_N, shift, spread
        ),
        "fast-dit": write_fast_dit(folder / "fast-dit", unit_NCHW, labels_N),
    }


# --- Hugging Face's save_to_disk ------------------------------------------------------------------


def write_arrow(path, columns, batch=4):
    """The stream format, which is that of `datasets`."""
    import pyarrow

    table = pyarrow.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table, max_chunksize=batch)
    return path


def cells(images):
    return [{"bytes": encoded(image), "path": None} for image in images]


def write_saved(folder, images, labels, shards=2):
    """As Dataset.save_to_disk of datasets 5.2.0."""
    names = []
    for n, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
        names.append(f"data-{n:05d}-of-{shards:05d}.arrow")
        columns = {"image": cells(images[rows]), "label": [int(labels[row]) for row in rows]}
        write_arrow(folder / names[-1], columns)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "4e6748111664",
             "_format_columns": None, "_format_kwargs": {}, "_format_type": None,
             "_output_all_columns": False, "_split": None}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder
