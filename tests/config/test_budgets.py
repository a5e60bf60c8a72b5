"""How long each size trains, in what batches and at which rate: for all, or by its entry."""

import pytest

from jstar.config import Study
from jstar.data.check import check_study
from jstar.errors import JstarError
from jstar.train.events import run_events
from jstar.train.optimizer import learning_rate

SHAPE = (1, 8, 8)


def ladder(**own):
    return [{"name": "d1", "depth": 1}, {"name": "d2", "depth": 2, **own}]


def without_images(tree, **train):
    return {**tree, "train": {k: v for k, v in tree["train"].items() if k != "images"} | train}


def test_flops_for_all_give_every_size_its_images(tiny_study):
    study = Study.parse(without_images(tiny_study(), flops=3e9))
    for model in ("d1", "d2"):
        run = run_events(study, model, SHAPE)
        over = run.images * run.flops_per_image - 3e9
        assert 0 <= over < (run.batch + 1) * run.flops_per_image
    assert run_events(study, "d1", SHAPE).images > 2 * run_events(study, "d2", SHAPE).images


def test_an_entry_says_its_own_length_batch_and_rate(tiny_study):
    study = Study.parse(tiny_study(ladder=ladder(images=9600, batch=32, learning_rate=0.02)))
    assert run_events(study, "d1", SHAPE).images == 6400
    own = run_events(study, "d2", SHAPE)
    assert (own.images, own.batch, own.steps) == (9600, 32, 300)
    assert learning_rate(study.train_of("d2"), 16, 9600) == 0.02
    assert learning_rate(study.train_of("d1"), 8, 6400) == pytest.approx(0.003 * 2**0.5)
    in_flops = Study.parse(tiny_study(ladder=ladder(flops=3e9)))
    run = run_events(in_flops, "d2", SHAPE)
    assert run.images * run.flops_per_image == pytest.approx(3e9, rel=0.02)


def test_what_an_entry_says_is_all_that_its_runs_depend_on(tiny_study):
    def content(model, everywhere, **own):
        return Study.parse(tiny_study(train={"images": everywhere}, ladder=ladder(**own))).content(
            "train", model
        )

    assert content("d2", 6400, images=9600) == content("d2", 7000, images=9600)
    assert content("d1", 6400, images=9600) == content("d1", 6400)
    assert content("d2", 6400, images=6400) == content("d2", 6400)
    assert content("d2", 6400, images=9600) != content("d2", 6400)


@pytest.mark.parametrize(
    ("train", "own", "words"),
    [
        ({}, {}, ["train", "neither of images and flops given"]),
        ({"images": 6400, "flops": 1e9}, {}, ["train", "both of images and flops given"]),
        ({"images": 6400}, {"images": 1, "flops": 1.0}, ["ladder.d2", "both of images and flops"]),
        ({"images": 6400}, {"images": 32}, ["ladder.d2", "batch = 64 must not exceed images = 32"]),
    ],
)
def test_a_length_that_is_none_is_refused(tiny_study, train, own, words):
    with pytest.raises(JstarError) as error:
        Study.parse(without_images(tiny_study(ladder=ladder(**own)), **train))
    assert all(word in str(error.value) for word in words), error.value


def test_a_run_shorter_than_its_first_snapshot_is_refused(tiny_study):
    study = Study.parse(without_images(tiny_study(), flops=1e6))
    with pytest.raises(JstarError, match="first_snapshot = 640 exceeds the .* images of a run"):
        run_events(study, "d2", SHAPE)


def test_the_batch_of_an_entry_is_checked_against_the_data(tiny_study):
    study = Study.parse(tiny_study(ladder=ladder(batch=300)))
    with pytest.raises(JstarError, match=r"ladder.d2.batch = 300 exceeds the data.*1 to 256"):
        check_study(study)
