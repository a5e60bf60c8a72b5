"""Class labels: from 0 on, and for a conditional study two classes or more, none of them empty."""

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig, Study
from jstar.data import open_dataset, prepare
from jstar.data.check import check_study
from jstar.errors import JstarError


@pytest.mark.parametrize(("label", "kind"), [(-1, np.int64), (2**64 - 1, np.uint64)])
def test_labels_that_are_no_class(tmp_path, label, kind):
    np.savez(
        tmp_path / "x.npz", images=formats.pictures(4), labels=np.array([0, 1, 1, label], kind)
    )
    made = DatasetConfig(name="toy", source="npz", path=str(tmp_path / "x.npz"))
    with pytest.raises(JstarError, match=f"x.npz: has the label {label}, allowed"):
        prepare(made, tmp_path / "out")
    prepare(made.model_copy(update={"labels": "none"}), tmp_path / "out")
    assert open_dataset(tmp_path / "out").labels_N.tolist() == [0] * 4


def conditional(tiny_study, path, **dataset):
    return Study.parse(
        tiny_study(
            dataset={"source": "npz", "name": "toy", "path": str(path), "limit": None, **dataset},
            optimal={"estimator": "exact_by_class"},
            model={"class_drop": 0.1},
            ladder=[{"name": "d1", "depth": 1, "batch": 2}],
        )
    )


@pytest.mark.parametrize(("labels", "match"), [
    ([0] * 6, "has no class labels .all are 0."),
    ([0, 1, 3, 3, 1, 0], "has 4 classes, and of 1 of them .the first is 2. no image"),
    ([1, 2, 1, 2, 1, 2], "has 3 classes, and of 1 of them .the first is 0."),
])  # fmt: skip
def test_a_conditional_study_needs_images_of_two_classes(tmp_path, tiny_study, labels, match):
    np.savez(tmp_path / "x.npz", images=formats.pictures(6), labels=np.array(labels))
    study = conditional(tiny_study, tmp_path / "x.npz")
    with pytest.raises(JstarError, match=f"study: dataset 'toy': {match}"):
        check_study(study)
    prepare(study.dataset, tmp_path / "out")  # the images are fine for other studies
    data = open_dataset(tmp_path / "out")
    assert data.labels_for(False) is None
    with pytest.raises(JstarError, match=match):
        data.labels_for(True)


def test_a_class_that_limit_and_holdout_leave_empty(tmp_path, tiny_study):
    np.savez(tmp_path / "x.npz", images=formats.pictures(6), labels=np.array([0, 1, 1, 1, 1, 2]))
    check_study(conditional(tiny_study, tmp_path / "x.npz"))
    with pytest.raises(JstarError, match="has 2 classes.*the first is 0"):
        check_study(conditional(tiny_study, tmp_path / "x.npz", holdout=1, limit=5))
