"""Map-reduce over the points: each shard sums its tiles for all draws, the sums just add.

A shard is one file; a lost one is computed again by itself. Shards of one run carry the run's
fingerprint, and merging refuses any other.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jstar.config import Study, estimator_conflict
from jstar.curve import OptimalLoss
from jstar.data.card import Card
from jstar.data.store import Dataset, open_dataset
from jstar.errors import JstarError
from jstar.optimal.exact.pair_form import shard_tiles
from jstar.optimal.exact.problem import DrawForm, ExactProblem, pose_problem
from jstar.optimal.optimal_loss import curve_of_draws, form_of_draws, sums_of_draws
from jstar.optimal.oracle import dataset_points
from jstar.progress import Progress
from jstar.records import fingerprint, write_atomically


def write_shard(study: Study, data: Path, out: Path, shard: int, shards: int) -> None:
    """Sum shard `shard` of `shards` (1-based) of the points in `data`; write the file `out` (.npz).

    Raises JstarError for a shard number out of range, or an estimate that has no shards.
    """
    if not 1 <= shard <= shards:
        raise JstarError(f"--shard {shard}/{shards}: is not allowed, shards are 1/n to n/n")
    if out.suffix != ".npz":
        raise JstarError(f"{out}: a shard is a .npz file")
    dataset, problem, form = _posed(study, data)
    tiles = [tile for _, mine in shard_tiles(problem, (shard, shards)) for tile in mine]
    share = sum(stop - start for start, stop in tiles)
    with Progress(f"optimal {dataset.card.name} {shard}/{shards}", share, "points") as bar:
        sums = sums_of_draws(problem, form, (shard, shards), bar.advance)
    facts = json.dumps({
        "run": _run(study, dataset), "shard": shard, "shards": shards,
        "precision": problem.precision,
    })  # fmt: skip
    write_atomically(out, lambda path: np.savez(path, sums=sums, facts=np.array(facts)))


def merge_shards(study: Study, data: Path, files: list[Path]) -> OptimalLoss:
    """The curve from all shards of a run, in any order.

    Raises JstarError if one is missing, given twice, damaged, or of another run.
    """
    dataset, problem, form = _posed(study, data)
    found: dict[int, tuple[Path, NDArray[np.float64]]] = {}
    total = 0
    for path in map(Path, files):
        number, total, sums = _read(path, _run(study, dataset), total, problem.precision)
        if number in found:
            raise JstarError(f"{path}: is shard {number}/{total}, and so is {found[number][0]}")
        found[number] = (path, sums)
    missing = [k for k in range(1, total + 1) if k not in found]
    if missing or not found:
        what = f"shard {missing[0]}/{total} is missing" if missing else "no file is given"
        raise JstarError(f"merge: {what}, all shards of the run are needed")
    # Added in the order of their numbers: the same bits whatever the order of the files.
    merged = sum(found[k][1] for k in sorted(found))
    return curve_of_draws(problem, form, np.asarray(merged))


def write_merged(study: Study, data: Path, files: list[Path], out: Path) -> OptimalLoss:
    """`merge_shards`, written to `out` (curve.csv) as `write_curve` does."""
    curve = merge_shards(study, data, files)
    card = data / "card.json"
    curve.write(out, card=card, card_id=Card.load(card).id, seed=study.optimal.seed, label_drop=0.0)
    return curve


def parse_shard(text: str) -> tuple[int, int]:
    """(k, n) of "k/n". Raises JstarError."""
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal()):
        raise JstarError(f"--shard {text}: is not allowed, shards are 1/n to n/n")
    return int(number), int(shards)


def _posed(study: Study, data: Path) -> tuple[Dataset, ExactProblem, DrawForm]:
    config = study.optimal
    dataset = open_dataset(data, verify=study.resources.verify_arrays)
    conflict = estimator_conflict(
        config.estimator, form=config.form, sampled=dataset.stds_NCHW is not None, sharded=True,
        relative_se=config.relative_se,
    )  # fmt: skip
    if conflict:
        raise JstarError(f"{data}: {conflict}, set optimal.shards to 1")
    labels = dataset.labels_for(study.conditional)
    points = dataset_points(dataset)
    problem = pose_problem(
        points, study.sigmas.values, estimator=config.estimator, labels=labels,
        queries=config.queries, seed=config.seed,
    )  # fmt: skip
    return dataset, problem, form_of_draws(config.form, points)


def _run(study: Study, dataset: Dataset) -> str:
    """Fingerprint of everything that decides the sums."""
    config = study.optimal
    return fingerprint(
        [dataset.card.id, study.sigmas.values, config.estimator, config.queries, config.seed]
    )


def _read(
    path: Path, run: str, shards: int, precision: str
) -> tuple[int, int, NDArray[np.float64]]:
    """(number, number of shards, sums) of one file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            facts, sums = json.loads(str(archive["facts"])), archive["sums"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise JstarError(f"{path}: is not a shard of 'jstar optimal' ({error})") from error
    if facts["run"] != run:
        raise JstarError(
            f"{path}: belongs to run {facts['run']}, this study and dataset are run {run}; "
            "compute the shard again"
        )
    if facts.get("precision") != precision:  # the noise of int8 draws lies on a grid
        raise JstarError(
            f"{path}: was summed in {facts.get('precision')}, which this machine would do in "
            f"{precision}; compute the shard, or merge, on a machine of the other's kind"
        )
    if shards and facts["shards"] != shards:
        raise JstarError(
            f"{path}: is one of {facts['shards']} shards, the files before it are of {shards}"
        )
    return int(facts["shard"]), int(facts["shards"]), sums
