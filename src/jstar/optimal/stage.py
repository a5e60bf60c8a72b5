"""The optimal stage: curve.csv and the oracle set of a prepared dataset."""

from pathlib import Path

from jstar.config import OptimalConfig, Study
from jstar.curve import OptimalLoss
from jstar.data.store import Dataset, open_dataset
from jstar.optimal.optimal_loss import optimal_loss
from jstar.optimal.oracle import build_oracle
from jstar.progress import Progress


def write_curve(study: Study, data: Path, out: Path, *, label_drop: float = 0.0) -> OptimalLoss:
    """Estimate J* of the dataset in `data` as the study asks; write `out` (curve.csv) and .json.

    label_drop: as in `optimal_loss`; 0 is what evaluation measures.
    """
    dataset = open_dataset(data, verify=study.resources.verify_arrays)
    curve = dataset_curve(
        dataset, study.sigmas.values, study.optimal, study.conditional, label_drop=label_drop
    )
    curve.write(out, card_id=dataset.card.id, seed=study.optimal.seed, label_drop=label_drop,
                card=data / "card.json")  # fmt: skip
    return curve


def dataset_curve(
    dataset: Dataset,
    sigmas: list[float],
    config: OptimalConfig,
    conditional: bool,
    *,
    label_drop: float = 0.0,
) -> OptimalLoss:
    """J* of a prepared dataset, estimated as `config` asks; it says how far it is."""
    passes = (2 if dataset.card.mirror else 1) * (2 if label_drop else 1)
    with Progress(f"optimal {dataset.card.name}", passes * len(dataset), "points") as bar:
        return optimal_loss(
            dataset.images_NCHW,
            sigmas,
            estimator=config.estimator,
            labels=dataset.labels_for(conditional),
            queries=config.queries,
            seed=config.seed,
            scale=dataset.card.scale,
            offset=dataset.card.offset,
            mirror=dataset.card.mirror,
            spread=dataset.stds_NCHW,
            form=config.form,
            label_drop=label_drop,
            relative_se=config.relative_se,
            subset=config.subset,
            repeats=config.repeats,
            own_weight=config.own_weight,
            advance=bar.advance,
        )


def write_oracle(study: Study, data: Path, out: Path) -> None:
    """Write the oracle set of the dataset in `data` to the folder `out`."""
    dataset = open_dataset(data, verify=study.resources.verify_arrays)
    sigmas = study.sigmas.values
    points = len(dataset) * (2 if dataset.card.mirror else 1)
    total = len(sigmas) * min(study.evaluate.queries, points)
    with Progress(f"oracle {dataset.card.name}", total, "draws") as bar:
        build_oracle(
            dataset,
            sigmas,
            queries=study.evaluate.queries,
            seed=study.evaluate.seed,
            estimator=study.optimal.estimator,
            out=out,
            card=data / "card.json",
            progress=bar.advance,
        )
