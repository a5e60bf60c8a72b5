"""What can be said about a study's dataset before any job has run."""

from pathlib import Path

from jstar.config import DatasetConfig, Study
from jstar.data.prepare import check_split
from jstar.data.sources import Shape, present, reader
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
    """Batches that the data cannot fill."""
    found = image_count(study.dataset)
    if found is None:
        return []
    total = min(found, study.dataset.limit or found)
    check_split(study.dataset, total)
    count = total - study.dataset.holdout
    batches = [("tune.batches:", b) for b in study.tune.batches if study.tune.enabled]
    for entry in study.ladder:
        key = "train.batch" if entry.batch is None else f"ladder.{entry.name}.batch"
        batches.append((f"{key} =", study.train_of(entry.name).batch))
    return [
        f"{key} {batch} exceeds the data: '{study.dataset.name}' has {count} images to train on, "
        f"allowed is 1 to {count}"
        for key, batch in dict.fromkeys(batches)
        if batch > count
    ]
