"""What can be said about a study's dataset before any job has run."""

from pathlib import Path

from jstar.config import DatasetConfig, Study
from jstar.data.card import Card
from jstar.data.classes import require_classes
from jstar.data.prepare import split_of
from jstar.data.sources import Shape, present, reader
from jstar.data.sources.base import tree_stamp
from jstar.data.vae import latent_shape
from jstar.errors import JstarError


def image_count(config: DatasetConfig) -> int | None:
    """Images in the source; None where only reading a whole archive would tell.

    Raises JstarError if the source is not there, is not of its kind, or does not take a key.
    """
    return present(config).glance(config)[0]


def source_shape(config: DatasetConfig) -> tuple[int, int, int, int]:
    """(N, C, H, W) of the prepared source; of a well-known set also before its files are there.

    Raises JstarError as `image_count` does.
    """
    count, shape = _glance(config)
    return count, *latent_shape(config, shape)


def source_changed(folder: Path) -> str | None:
    """A sentence where the files that the dataset in `folder` was read from are others since.

    By their names, sizes and times; None where they are not there any more, or nothing is prepared.
    """
    if not (folder / "card.json").is_file():
        return None
    card = Card.load(folder / "card.json")
    source = Path(card.origin)
    if not card.source_stamp or not source.exists() or tree_stamp(source) == card.source_stamp:
        return None
    return (
        f"dataset '{card.name}': {source} has changed since it was prepared (names, sizes or times "
        f"of its files), {folder} holds the old images; to read it anew run 'jstar prepare', or "
        "snakemake with --forcerun prepare"
    )


def _glance(config: DatasetConfig) -> tuple[int, Shape]:
    chosen = reader(config)
    there = config.path is not None and Path(config.path).exists()
    if chosen.published is not None and not there:
        return chosen.published(config)
    count, shape = present(config).glance(config)
    return (chosen.open(config).count if count is None else count), shape


def check_study(study: Study, origin: str = "study") -> None:
    """Compare the study with its dataset. Raises JstarError: one sentence that names `origin`."""
    try:
        faults = _faults(study)
    except JstarError as error:
        raise JstarError(f"{origin}: {error}") from error
    if faults:
        raise JstarError(f"{origin}: " + "; ".join(faults))


def _faults(study: Study) -> list[str]:
    """Batches that the data cannot fill, patches that do not fill an image."""
    found, shape = present(study.dataset).glance(study.dataset)
    if found is None:
        return []
    count = split_of(study.dataset, found).train
    if study.conditional:
        _check_classes(study.dataset)
    batches = [("tune.batches:", b) for b in study.tune.batches if study.tune.enabled]
    for entry in study.ladder:
        key = "train.batch" if entry.batch is None else f"ladder.{entry.name}.batch"
        batches.append((f"{key} =", study.train_of(entry.name).batch))
    patch, (_, rows, columns) = study.model.patch, latent_shape(study.dataset, shape)
    misfit = rows % patch or columns % patch
    return [
        *(
            f"{key} {batch} exceeds the data: '{study.dataset.name}' has {count} images to train "
            f"on, allowed is 1 to {count}"
            for key, batch in dict.fromkeys(batches)
            if batch > count
        ),
        *(
            [f"model.patch = {patch} does not divide images of {rows} x {columns}"]
            if misfit
            else []
        ),
    ]


def _check_classes(config: DatasetConfig) -> None:
    """Refuse labels that a conditional study cannot use. Raises JstarError."""
    chosen = reader(config)
    if config.path is None and chosen.free:
        return  # still to be downloaded
    source = chosen.open(config)
    labels_N = split_of(config, source.count).train_rows(source.labels())
    require_classes(labels_N, source.classes, f"dataset '{config.name}'")
