"""Packages that only some stages need, and the extra of `pip install` that brings each."""

from importlib.util import find_spec

from jstar.errors import JstarError

EXTRA_OF = {
    "torch": "train", "safetensors": "train", "sklearn": "train",
    "snakemake": "workflow", "papermill": "workflow", "nbconvert": "workflow",
    "diffusers": "latents", "pyarrow": "parquet",
}  # fmt: skip


def absent_extra(error: ModuleNotFoundError) -> str | None:
    """What to install where an import failed, in one sentence; None if no extra brings it."""
    package = (error.name or "").split(".")[0]
    extra = EXTRA_OF.get(package)
    if extra is None:
        return None
    return (
        f"the package '{package}' is not installed; install it with: pip install 'jstar[{extra}]'"
    )


def require(*packages: str) -> None:
    """Raise JstarError, one sentence that names the extra, for the first that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise JstarError(absent_extra(ModuleNotFoundError(name=package)) or package)
