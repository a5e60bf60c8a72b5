"""Every study in config/: its DAG is complete (its plan: preflight/test_forecast.py)."""

import io
import tarfile

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image
from project import copy_project, jobs

STUDIES = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, with archives of the ImageNet formats where the studies want them."""
    folder = copy_project(tmp_path_factory.mktemp("studies"))
    (folder / "data/imagenet64").mkdir(parents=True)
    for batch in range(10):
        index = 1_200 * batch + np.arange(1_200)
        np.savez_compressed(
            folder / f"data/imagenet64/train_data_batch_{batch + 1}.npz",
            data=np.zeros((1_200, 3 * 64 * 64), np.uint8),
            labels=1 + index // 6 % 1000,  # so that the sixth that is not held out has every class
        )
    photo = io.BytesIO()
    Image.new("RGB", (600, 520)).save(photo, "JPEG", quality=1)
    with tarfile.open(folder / "data/ILSVRC2012_img_train.tar", "w") as archive:
        for number in range(10_010):  # more than are held out
            entry = tarfile.TarInfo(f"n01440764/n01440764_{number}.JPEG")
            entry.size = len(photo.getvalue())
            archive.addfile(entry, io.BytesIO(photo.getvalue()))
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_a_dry_run_has_every_stage(project, name):
    study = yaml.safe_load((ROOT / "config" / name).read_text())
    count = jobs(project, "--configfile", f"config/{name}")
    runs = sum(len(entry.get("seeds", [0])) for entry in study["ladder"])
    assert sum(count[job] for job in count if job.startswith("train_")) == runs
    assert count["evaluate"] == runs
    last = "fit" if study.get("kind", "scaling") == "scaling" else "variants_losses"
    assert {"prepare", "optimal", "oracle", last, "report"} <= set(count)
