"""Installed anywhere: what a wheel holds, what an extra brings, a study folder of one's own."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import ROOT

from jstar.application import application, studies
from jstar.config import Study
from jstar.extras import EXTRA_OF

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGE_OF = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
PACKAGE_OF["pydantic_core"] = "pydantic"  # of which it is a part
# Imported only where they are installed already, for loggers that a study asks for.
FOUND = {"tensorboard", "wandb"}


def names(requirements):
    """The packages of requirements."""
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def imports():
    """Packages that the source imports, from anywhere in a file."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def test_every_import_is_of_the_core_or_of_the_extra_that_is_named():
    core = names(PROJECT["dependencies"])
    for name in set(imports()) - set(sys.stdlib_module_names) - FOUND - {"jstar"}:
        package = PACKAGE_OF.get(name, name)
        if name in EXTRA_OF:
            assert package in names(EXTRAS[EXTRA_OF[name]]), name
            assert package not in core, name
        else:
            assert package in core, name


def test_all_is_every_extra_for_users():
    (everything,) = EXTRAS["all"]
    assert set(everything.removeprefix("jstar[").removesuffix("]").split(",")) == {*EXTRAS} - {
        "all",
        "dev",
        "docs",
    }


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("sklearn", "train", ["prepare", "--config", "config/digits.yaml", "--results", "OUT"]),
        ("papermill", "workflow", ["notebook", "notebooks/inspect_fits.ipynb", "--config",
                                   "config/digits.yaml", "--out", "OUT/page.html"]),
    ],
)  # fmt: skip
def test_an_absent_extra_is_named_in_one_sentence(
    jstar, monkeypatch, tmp_path, package, extra, arguments
):
    monkeypatch.chdir(ROOT)
    for name in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)  # a part imported before needs no whole
    status, out, err = jstar(*(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert (status, out) == (2, "")
    assert err == (
        f"jstar: the package '{package}' is not installed; install it with: "
        f"pip install 'jstar[{extra}]'\n"
    )


def test_without_torch_training_says_so_and_the_rest_works(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from jstar.cli import main; main()"
    for arguments, status in (
        (["train", "--config", "config/digits.yaml", "--model", "w8"], 2),
        (["check", "--config", "config/digits.yaml"], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert ("pip install 'jstar[train]'" in done.stderr) == (status == 2)
        assert "Traceback" not in done.stderr


def test_a_wheel_holds_the_application(tmp_path):
    """Every file that a study needs, from its one place in the repository."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    (path,) = wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = set(zipfile.ZipFile(path).namelist())
    wanted = {ROOT / "Snakefile"}
    for folder in ("workflow", "config", "profiles", "notebooks"):
        wanted |= {p for p in (ROOT / folder).rglob("*") if p.is_file() and p.name[0] != "."}
    assert {f"jstar/_application/{p.relative_to(ROOT)}" for p in wanted} <= held
    sources = [path for kind in ("*.c", "*.h") for path in (ROOT / "src").rglob(kind)]
    assert len(sources) > 5
    assert {"jstar/py.typed", *(str(p.relative_to(ROOT / "src")) for p in sources)} <= held
    assert not [name for name in held if name.startswith(("tests", "results", "benchmarks"))]


def test_the_application_is_found_and_every_study_of_it_is_one():
    assert application() == ROOT
    assert {"digits", "imagenet64"} <= set(studies())
    for path in studies().values():
        assert Study.load(path).study == path.stem


def test_a_study_folder_is_written_once_and_nothing_is_overwritten(jstar, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    status, out, err = jstar("init", folder)
    assert status == 0, err
    assert (folder / "digits.yaml").read_text() == (ROOT / "config/digits.yaml").read_text()
    assert "jstar study digits.yaml" in (folder / "README.md").read_text()
    assert "jstar study digits.yaml" in out
    (folder / "README.md").write_text("mine")
    assert jstar("init", folder, "--study", "cifar10")[0] == 0
    assert (folder / "README.md").read_text() == "mine"
    (folder / "digits.yaml").write_text("changed")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for arguments, word in (
        ((folder,), "is there already"),
        ((folder / "README.md",), "is a file"),
        ((tmp_path / "new", "--study", "digit"), "did you mean 'digits'?"),
    ):
        status, out, err = jstar("init", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert word in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--cores", "0"], ["--cores = 0", "'all'"]),
        (["--cores", "many"], ["--cores = many"]),
        (["--profile", "slrum"], ["--profile = slrum", "did you mean 'slurm'?"]),
    ],
)
def test_wrong_options_of_study(jstar, tmp_path, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = jstar("study", ROOT / ".test/tiny.yaml", *more)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())
