"""Shards: the same answer for any number of them and any order; wrong ones are refused."""

import re

import numpy as np
import pytest

from jstar.config import Study
from jstar.data import prepare
from jstar.errors import JstarError
from jstar.optimal import points as points_module
from jstar.optimal.exact import distances
from jstar.optimal.shards import merge_shards, parse_shard, write_shard
from jstar.optimal.stage import write_curve


@pytest.fixture
def study(tiny_study, tmp_path):
    made = Study.parse(tiny_study(dataset={"limit": None, "mirror": True}))
    prepare(made.dataset, tmp_path / "data")
    return made


def shards_of(study, tmp_path, count):
    files = [tmp_path / f"{k}-{count}.npz" for k in range(1, count + 1)]
    for k, file in enumerate(files, 1):
        write_shard(study, tmp_path / "data", file, k, count)
    return files


def test_any_number_of_shards_gives_the_same_curve(study, tmp_path):
    assert points_module.TILE < 2 * 1797  # several tiles
    whole = write_curve(study, tmp_path / "data", tmp_path / "curve.csv")
    for count in (1, 3):
        files = shards_of(study, tmp_path, count)
        merged = merge_shards(study, tmp_path / "data", files)
        turned = merge_shards(study, tmp_path / "data", files[::-1])
        assert (merged.loss == turned.loss).all()
        assert np.allclose(merged.loss, whole.loss, rtol=1e-12, atol=1e-15)
        assert np.allclose(merged.stderr, whole.stderr, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("limit", [None, 256])
def test_the_progress_of_each_shard_ends_at_its_own_points(
    count, limit, tiny_study, tmp_path, capsys
):
    """256 points are one tile: the second shard has none of them."""
    study = Study.parse(tiny_study(dataset={"limit": limit}))
    prepare(study.dataset, tmp_path / "data")
    capsys.readouterr()
    shards_of(study, tmp_path, count)
    done = re.findall(r"(\d+)/(\d+) points", capsys.readouterr().err)
    assert len(done) == count
    assert all(points == total for points, total in done)
    assert sum(int(points) for points, _ in done) == (limit or 1797)


def test_by_class_shards_add_up(tiny_study, tmp_path):
    study = Study.parse(
        tiny_study(optimal={"estimator": "exact_by_class"}, model={"class_drop": 0.1})
    )
    prepare(study.dataset, tmp_path / "data")
    whole = write_curve(study, tmp_path / "data", tmp_path / "curve.csv")
    merged = merge_shards(study, tmp_path / "data", shards_of(study, tmp_path, 4))
    assert np.allclose(merged.loss, whole.loss, rtol=1e-12, atol=1e-15)


def test_wrong_shards_are_refused(study, tiny_study, tmp_path):
    first, second = shards_of(study, tmp_path, 2)
    data = tmp_path / "data"
    with pytest.raises(JstarError, match="shard 2/2 is missing"):
        merge_shards(study, data, [first])
    with pytest.raises(JstarError, match="and so is"):
        merge_shards(study, data, [first, first])
    other = Study.parse(tiny_study(dataset={"limit": None, "mirror": True}, optimal={"seed": 9}))
    with pytest.raises(JstarError, match="belongs to run"):
        merge_shards(other, data, [first, second])
    with pytest.raises(JstarError, match="the files before it are of 2"):
        merge_shards(study, data, [first, *shards_of(study, tmp_path, 1)])
    (tmp_path / "broken.npz").write_bytes(first.read_bytes()[:500])
    with pytest.raises(JstarError, match="is not a shard"):
        merge_shards(study, data, [tmp_path / "broken.npz"])
    with pytest.raises(JstarError, match="shards are 1/n to n/n"):
        write_shard(study, data, tmp_path / "no.npz", 3, 2)
    assert not (tmp_path / "no.npz").exists()


def test_shards_that_cannot_be_are_refused_before_any_job(tiny_study):
    for optimal, words in (
        ({"shards": 3, "estimator": "dol"}, "not allowed with estimator = 'dol'"),
        ({"shards": 3, "relative_se": 0.01}, "not allowed with relative_se"),
        ({"shards": 3, "form": "moment"}, "not allowed with form = 'moment'"),
        ({"form": "pair", "estimator": "cdol"}, "not allowed with estimator = 'cdol'"),
        ({"relative_se": 0.01, "estimator": "dol"}, "not allowed with estimator = 'dol'"),
        ({"form": "trio"}, "allowed are pair"),
    ):
        with pytest.raises(JstarError, match=words):
            Study.parse(tiny_study(optimal=optimal))
    for text in ("3", "a/2", "/", "1/-2"):
        with pytest.raises(JstarError, match="shards are 1/n to n/n"):
            parse_shard(text)


def test_the_number_of_shards_changes_no_content(tiny_study):
    one, three = (Study.parse(tiny_study(optimal={"shards": n})) for n in (1, 3))
    assert one.content("optimal") == three.content("optimal")


def test_shards_of_other_noise_are_refused(study, tmp_path, monkeypatch):
    """A machine without int8 products draws its noise in float32: sums of both mean nothing."""
    files = shards_of(study, tmp_path, 2)
    monkeypatch.setattr(distances, "int8_is_fast", lambda device: False)
    write_shard(study, tmp_path / "data", files[1], 2, 2)
    with pytest.raises(JstarError, match="1-2.npz: was summed in int8, .* would do in fp32"):
        merge_shards(study, tmp_path / "data", files)
    monkeypatch.undo()
    with pytest.raises(JstarError, match="2-2.npz: was summed in fp32, .* would do in int8"):
        merge_shards(study, tmp_path / "data", files)
