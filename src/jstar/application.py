"""Where the application lies: Snakefile, rules, studies, profiles and notebooks.

In a checkout at the top, in a wheel inside the package (`force-include` in pyproject.toml).
"""

from pathlib import Path

from jstar.errors import JstarError, nearest
from jstar.records import write_text

DEFAULT_STUDY = "digits"


def application() -> Path:
    """The folder of Snakefile, workflow/, config/, profiles/ and notebooks/.

    Raises JstarError where the package was installed without it.
    """
    here = Path(__file__).resolve()
    for folder in (here.with_name("_application"), here.parents[2]):
        if (folder / "Snakefile").is_file():
            return folder
    raise JstarError(f"{here.parent}: was installed without its Snakefile, install jstar again")


def studies() -> dict[str, Path]:
    """Every study that comes with the application: its name and its file."""
    return {path.stem: path for path in sorted((application() / "config").glob("*.yaml"))}


def study_file(name: str) -> Path:
    """The file of a study that comes with the application. Raises JstarError for another name."""
    known = studies()
    if name not in known:
        raise JstarError(
            f"study: '{name}' does not come with jstar, allowed are {', '.join(known)}"
            f"{nearest(name, known)}"
        )
    return known[name]


def write_study_folder(folder: Path, name: str) -> list[Path]:
    """Write NAME.yaml and, where there is none, a README into `folder`; the files written.

    Raises JstarError for an unknown study, and where the study's file is there already.
    """
    source, config, readme = study_file(name), folder / f"{name}.yaml", folder / "README.md"
    if folder.exists() and not folder.is_dir():
        raise JstarError(f"{folder}: is a file, allowed is a folder")
    if config.exists():
        raise JstarError(f"{config}: is there already, and nothing is written over it")
    written = [config] if readme.exists() else [config, readme]
    write_text(config, source.read_text(encoding="utf-8"))
    if readme in written:
        write_text(readme, README.format(name=name))
    return written


README = """\
# Study `{name}`

    jstar plan --config {name}.yaml       # what it costs, and what it can tell
    jstar study {name}.yaml               # run it; interrupted, the same command goes on
    jstar status --config {name}.yaml     # where every run stands

The result is one page, results/studies/{name}/report.html; the tables it is made of lie beside it.
Images, sizes and noise scales are chosen in {name}.yaml: `jstar check --config {name}.yaml` says in
one sentence what is wrong with a change.
"""
