"""Wrong inputs of every command: one sentence, exit status 2, and nothing left on the disk."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml


def study(**changes):
    """`check` of the tiny study with changes: a part is updated, anything else replaced."""
    return ("check", "--config", "s.yaml"), changes


def command(*words, **changes):
    """Another command on the tiny study, which lies in s.yaml."""
    return (*words, "--config", "s.yaml"), changes


def fit(*words, losses=lambda t: t, curve=lambda t: t):
    """`fit` of small tables, changed."""
    arguments = ("fit", "--losses", "l.csv", "--optimal", "c.csv", "--out", "out", *words)
    return arguments, {"losses": losses, "curve": curve}


TRAIN = ("train", "--model", "d1")

CASES = {
    # name: (what is called and on what, words of the sentence)
    "text is no JSON": ((("check", "--text", "{"), {}), ["--text: is not valid JSON", "line 1"]),
    "text repeats a key": (
        (("check", "--text", '{"study": "a", "study": "b"}'), {}),
        ["--text: the key 'study' is given twice"],
    ),
    "text is a list": ((("check", "--text", "[1]"), {}), ["--text: holds list"]),
    "infinite sigma": (study(sigmas={"max": "1e400"}), ["sigmas.max = '1e400'", "finite"]),
    "sigma not a number": (study(sigmas={"min": float("nan")}), ["sigmas.min = nan"]),
    "infinite FLOPs": (study(train={"images": None, "flops": float("inf")}), ["train.flops = inf"]),
    "too many images": (study(train={"images": 6 * 10**24}), ["train.images = 6", "1000000000000"]),
    "unknown instead of required": (
        study(train={"batch": None, "bach": 64}),
        ["the key 'train.bach' is unknown, did you mean 'batch'"],
    ),
    "unknown depth": (
        study(ladder=[{"name": "d1", "dept": 3}]),
        ["'ladder[0].dept' is unknown, did you mean 'depth'"],
    ),
    "all faults of the keys": (
        study(study="A B", train={"batch": 0, "lr": 1}, optimal={"form": "trio"}),
        ["4 faults", "'train.lr' is unknown", "study = 'A B'", "train.batch = 0", "form = 'trio'"],
    ),
    "all faults of one part": (
        study(train={"batch": 10**6, "first_snapshot": 10**7, "cooldown": {"snapshots": 7}}),
        ["3 faults", "batch = 1000000", "first_snapshot = 10000000", "cooldown.snapshots = 7"],
    ),
    "all faults between parts": (
        study(model={"class_drop": 0.1}, ladder=2 * [{"name": "d1", "depth": 1, "seeds": [3, 3]}]),
        ["3 faults", "class_drop = 0.1", "'d1' is used twice", "seeds: 3 is given twice"],
    ),
    "all batches above the data": (
        study(train={"batch": 300}, ladder=[{"name": "a", "depth": 1, "batch": 400},
                                            {"name": "b", "depth": 1}]),
        ["ladder.a.batch = 400 exceeds", "; train.batch = 300 exceeds", "1 to 256"],
    ),
    "a seed of no run": (
        command(*TRAIN, "--seed", 7), ["seed: 7", "'d1' in study 'tiny'", "allowed are 0, 1"],
    ),
    "a seed of another size": (
        command("train", "--model", "d2", "--seed", 1), ["seed: 1", "allowed are 0 (ladder.d2"],
    ),
    "losses of no run": (
        command("evaluate", "--model", "d1", "--seed", 7), ["seed: 7", "allowed are 0, 1"],
    ),
    "images of no run": (
        command("sampling", "draw", "--model", "d1", "--seed", 7), ["seed: 7", "allowed"],
    ),
    "no threads": (command(*TRAIN, "--threads", 0), ["--threads = 0", "at least 1"]),
    "negative threads": (command(*TRAIN, "--threads", -5), ["--threads = -5", "at least 1"]),
    "no threads for J*": (command("optimal", "--threads", 0), ["--threads = 0", "at least 1"]),
    "threads in words": (command("oracle", "--threads", "all"), ["oracle: ", "--threads"]),
    "a device of no kind": (command(*TRAIN, "--device", "tpu"), ["'tpu'", "allowed are cpu"]),
    "a device without a meaning": (command(*TRAIN, "--device", "meta"), ["'meta'", "cpu"]),
    "a GPU too many": (
        command("evaluate", "--model", "d1", "--device", "cuda:99"), ["'cuda:99'", "cpu"],
    ),
    "diagnosis on no device": (
        (("diagnose", "--denoiser", "a:b", "--dataset", "x", "--device", "tpu"), {}), ["'tpu'"],
    ),
    "training before prepare": (command(*TRAIN), ["results/data/digits"]),
    "tuning of a study without": (command("tune", "--model", "d1"), ["tune.enabled = false"]),
    "a shard of no number": (command("optimal", "--shard", "0/2"), ["--shard 0/2", "1/n to n/n"]),
    "an option that is not": (command("plan", "--kores", 3), ["plan: no such option", "--help"]),
    "a command that is not": ((("trian",), {}), ["no such command 'trian'", "'train'"]),
    "an option without its value": ((("prepare",), {}), ["prepare: missing option '--config'"]),
    "no such study": ((("prepare", "--config", "no.yaml"), {}), ["no.yaml: cannot be read"]),
    "losses summed over 64 dimensions": (
        fit(losses=lambda t: t.assign(loss=64 * t["loss"])),
        ["l.csv: line 4, ", "14.2 times the variance of the data (0.24", "means over the dim"],
    ),
    "a run of two networks": (
        fit(losses=lambda t: t.assign(params=t["params"].where(t.index != 2, 2e5))),
        ["l.csv: line 4, column 'params': found 200000", "run 'a' has 100000"],
    ),
    "sigma above the curve": (
        fit(losses=lambda t: t.replace({"sigma": {5.0: 20.0}})),
        ["sigma = 20 ", "known from 0.5 to 10"],
    ),
    "sigma below the curve": (
        fit(losses=lambda t: t.assign(sigma=t["sigma"] / 4)),
        ["sigma = 0.125 ", "known from 0.5 to 10"],
    ),
    "two columns of one name": (
        fit(losses=lambda t: t.assign(Loss=1)), ["l.csv: the column 'loss' is there twice"],
    ),
    "several columns missing": (
        fit(losses=lambda t: t.drop(columns=["flops", "params"])),
        ["columns 'params', 'flops' are missing", "found are run, sigma, loss"],
    ),
    "a curve that is none": (
        fit(curve=lambda t: t.rename(columns={"loss": "J"})),
        ["c.csv: the column 'loss' is missing, found are sigma, j"],
    ),
    "tables among another's": (
        (("fit", "--losses", "l.csv", "--out", "."), {}),
        ["--out .: holds files that are not of 'jstar fit'", "c.csv"],
    ),
    "tables into a file": ((("fit", "--losses", "l.csv", "--out", "c.csv"), {}), ["is a file"]),
}  # fmt: skip


# A study with one change, and what its sentence begins with.
KEYS = [
    ({"sigmas": {"min": 0}}, "sigmas.min = 0 "),
    ({"sigmas": {"min": 30}}, "sigmas: min = 30 must be below max = 20"),
    ({"sigmas": {"count": 1}}, "sigmas.count = 1 "),
    ({"sigmas": {"count": 1.5}}, "sigmas.count = 1.5 "),
    ({"sigmas": {"count": "many"}}, "sigmas.count = 'many' "),
    ({"sigmas": [1, 2]}, "sigmas = [1, 2] "),
    ({"ladder": []}, "ladder = [] "),
    ({"ladder": "d1"}, "ladder = 'd1' "),
    ({"ladder": [{"name": "a b", "depth": 1}]}, "ladder[0].name = 'a b' "),
    ({"ladder": [{"name": "d1", "depth": 0}]}, "ladder[0].depth = 0 "),
    ({"ladder": [{"name": "d1", "depth": 1, "seeds": []}]}, "ladder[0].seeds = [] "),
    ({"ladder": [{"name": "d1", "depth": 1, "seeds": [-1]}]}, "ladder[0].seeds[0] = -1 "),
    ({"model": {"patch": 3}}, "model.patch = 3 does not divide images of 8 x 8"),
    ({"model": {"patch": 0}}, "model.patch = 0 "),
    (
        {"model": {"head_width": 5}},
        "2 faults: model.head_width = 5 does not divide the width 8 ",
    ),
    ({"train": {"images": 0}}, "train.images = 0 "),
    ({"train": {"images": -5}}, "train.images = -5 "),
    ({"train": {"flops": 1e9}}, "train: both of images and flops "),
    ({"train": {"learning_rate": 0}}, "train.learning_rate = 0 "),
    ({"train": {"learning_rate": "fast"}}, "train.learning_rate = 'fast' "),
    ({"train": {"learning_rate": float("nan")}}, "train.learning_rate = nan "),
    ({"train": {"ema": []}}, "train.ema = [] "),
    ({"train": {"ema": [2]}}, "train.ema, evaluate.ema: an average of length 2 "),
    ({"train": {"snapshots": 0}}, "train.snapshots = 0 "),
    ({"train": {"warmup_images": -1}}, "train.warmup_images = -1 "),
    ({"train": {"process": "edn"}}, "train.process = 'edn' "),
    ({"evaluate": {"queries": 0}}, "evaluate.queries = 0 "),
    ({"optimal": {"queries": 1}}, "optimal.queries = 1 "),
    ({"fit": {"bootstrap": 1}}, "fit.bootstrap = 1 "),
    ({"fit": {"confidence": 2}}, "fit.confidence = 2 "),
    ({"dataset": {"source": "nope"}}, "dataset.source = 'nope' "),
    ({"dataset": {"limit": 0}}, "dataset.limit = 0 "),
    ({"dataset": {"path": "x.npz"}}, "dataset.path = 'x.npz': the source 'digits' reads no file"),
    ({"study": ""}, "study = '' "),
    ({"study": "../x"}, "study = '../x' "),
    ({"study": 5}, "study = 5 "),
    ({"resources": {"train_gpus": -1}}, "resources.train_gpus = -1 "),
    ({"figures": {"sigmas": 99}}, "figures.sigmas = 99 "),
]
CASES |= {f"{start}in a study": (study(**change), [f"s.yaml: {start}"]) for change, start in KEYS}

# A command in the folder of the study and its tables, and what its sentence begins with.
COMMANDS = {
    "check": "check: give either --config",
    "check --config .": ".: cannot be read",
    "check --text null": "--text: holds NoneType",
    "check --text {}": "--text: 4 faults: the key 'study' is missing",
    "check --config l.csv": "l.csv: ",
    "prepare --config s.yaml --results s.yaml": "s.yaml/data/digits",
    "optimal --config s.yaml": "results/data/digits",
    "optimal --config s.yaml --shard 3/2": "--shard 3/2: ",
    "optimal --config s.yaml --shard 1": "--shard 1: ",
    "optimal --config s.yaml --shard 1/0": "--shard 1/0: ",
    "optimal-merge --config s.yaml": "results/data/digits",
    "optimal-compare --config s.yaml": "results/data/digits",
    "oracle --config s.yaml": "results/data/digits",
    "train --config s.yaml": "train: missing option '--model'",
    "train --config s.yaml --model dx": "model: 'dx' is not in the ladder",
    "train --config s.yaml --model d1 --seed -1": "seed: -1 is not among",
    "train --config s.yaml --model d1 --seed x": "train: invalid value for '--seed'",
    "train --config s.yaml --model d1 --threads 1.5": "train: invalid value for '--threads'",
    "evaluate --config s.yaml --model d1": "results/data/digits",
    "evaluate --config s.yaml --model dx": "model: 'dx' is not in the ladder",
    "fit --config s.yaml": "results/runs/tiny/d1-s0/losses.csv: cannot be read",
    "fit --losses no.csv --out o": "no.csv: cannot be read",
    "fit --losses . --out o": ".: cannot be read",
    "fit --losses s.yaml --out o": "s.yaml: ",
    "fit --losses l.csv": "fit: give either --config",
    "fit --losses l.csv --optimal no.csv --out o": "no.csv: cannot be read",
    "fit --losses l.csv --optimal l.csv --out o": "l.csv: line 4, column 'sigma'",
    "fit --losses l.csv --out o --process x": "process: 'x' is unknown",
    "figures nope --config s.yaml": "figure 'nope' is unknown",
    "figures --fits no": "figures: --fits and --out must be given together",
    "figures --fits l.csv --out o": "l.csv/",
    "figures --config s.yaml": "results/studies/tiny/losses.csv: cannot be read",
    "report --config s.yaml": "results/studies/tiny/losses.csv: cannot be read",
    "report --fits no --out p.html": "no/losses.csv: cannot be read",
    "notebook --config s.yaml": "notebook: missing argument",
    "variants losses --config s.yaml": "variants: study 'tiny' is of kind 'scaling'",
    "variants nope": "variants: no such command 'nope'",
    "sampling quality --config s.yaml": "results/runs/tiny/d1-s0/quality.csv: cannot be read",
    "sampling draw --config s.yaml --model dx": "model: 'dx' is not in the ladder",
    "sampling theory": "sampling theory: give either --config",
    "verify": "verify: give either --config",
    "status --config no.yaml": "no.yaml: cannot be read",
    "plan --config s.yaml --cores 0": "--cores = 0 ",
    "study s.yaml --cores 0": "--cores = 0 ",
    "study no.yaml": "no.yaml: cannot be read",
    "study s.yaml --profile nope": "--profile = nope ",
    "study": "study: missing argument 'config'",
    "init": "init: missing argument 'folder'",
    "init d --study nope": "study: 'nope' does not come with jstar",
    "init s.yaml": "s.yaml: is a file",
    "diagnose --dataset x": "diagnose: give one of --denoiser",
    "diagnose --denoiser nope --dataset l.csv --out o": "denoiser: 'nope' is not allowed",
    "diagnose --denoiser nope:f --dataset l.csv --out o": "denoiser: the module 'nope' cannot",
    "power --sizes x": "power: invalid value for '--sizes'",
    "power --nope": "power: no such option: --nope",
}
CASES |= {line: ((tuple(line.split()), {}), [f"jstar: {start}"])
          for line, start in COMMANDS.items()}  # fmt: skip

# Tables of losses with one change, and of J*.
ROWS = [
    (lambda t: t.iloc[:0], "l.csv: holds no rows"),
    (lambda t: t.iloc[:1], "l.csv: column 'params' holds one size only"),
    (lambda t: t.assign(loss=-1.0), "l.csv: line 2, column 'loss': found -1.0"),
    (lambda t: t.assign(loss=np.nan), "l.csv: line 2, column 'loss': found nan"),
    (lambda t: t.assign(loss="x"), "l.csv: line 2, column 'loss': found x"),
    (lambda t: t.assign(flops=0), "l.csv: line 2, column 'flops': found 0"),
    (lambda t: t.assign(sigma=-1), "l.csv: line 2, column 'sigma': found -1"),
    (lambda t: t.assign(params=np.inf), "l.csv: line 2, column 'params': found inf"),
    (lambda t: t.assign(run=""), "l.csv: line 2, column 'run': found nan"),
    (lambda t: t.assign(gap=-1.0), "l.csv: line 2, column 'gap': found -1.0"),
    (lambda t: t.assign(images=0), "l.csv: line 2, column 'images': found 0"),
    (lambda t: t.assign(loss_se=-1), "l.csv: line 2, column 'loss_se': found -1"),
    (lambda t: pd.concat([t, t]), "l.csv: line 10 repeats run 'a'"),
]
CURVES = [
    (lambda t: t.iloc[:0], "c.csv: holds no rows"),
    (lambda t: t.assign(loss=-1), "c.csv: line 2, column 'loss': found -1"),
    (lambda t: t.assign(loss="x"), "c.csv: line 2, column 'loss': found x"),
    (lambda t: t.assign(sigma=[1, 1, 2, 3]), "c.csv: line 3, column 'sigma': found 1"),
    (lambda t: t.assign(loss=10.0), "l.csv: line 2, column 'loss': 0.06 at sigma = 0.5 is below"),
]
CASES |= {f"losses: {start}": (fit(losses=change), [f"jstar: {start}"]) for change, start in ROWS}
CASES |= {f"J*: {start}": (fit(curve=change), [f"jstar: {start}"]) for change, start in CURVES}


def losses_table():
    rows = [
        (run, params, params * data, sigma, (0.05 if sigma < 1 else 0.24) + 100 / data)
        for run, params in (("a", 1e5), ("b", 1e6))
        for data in (1e4, 3e4)
        for sigma in (0.5, 5.0)
    ]
    return pd.DataFrame(rows, columns=["run", "params", "flops", "sigma", "loss"])


@pytest.fixture
def write(tiny_study, tmp_path, monkeypatch):
    """Writes the study and the tables, changed, into the folder where commands then run."""
    monkeypatch.chdir(tmp_path)

    def files(losses=lambda t: t, curve=lambda t: t, **changes):
        tree = tiny_study(**changes)
        for part in [part for part in tree.values() if isinstance(part, dict)]:
            for key in [key for key, value in part.items() if value is None]:
                del part[key]
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
        losses(losses_table()).to_csv("l.csv", index=False)
        j_star = pd.DataFrame({"sigma": [0.5, 1.0, 5.0, 10.0], "loss": [0.04, 0.1, 0.22, 0.24]})
        curve(j_star).to_csv("c.csv", index=False)

    return files


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input_is_one_sentence_and_leaves_nothing(name, jstar, write, tmp_path):
    (arguments, changes), words = CASES[name]
    write(**changes)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = jstar(*arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("jstar: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert sorted(tmp_path.rglob("*")) == before


IMAGES = np.random.default_rng(0).integers(0, 256, (256, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.full_like(IMAGES, 7)}, "all 256 images are equal, at least 2 different"),
        ({"images": IMAGES[:1]}, "leaves 1 of 1 images"),
        ({"images": IMAGES[:0]}, "(0, 8, 8, 1), no axis may be empty"),
        ({"x": IMAGES}, "holds no array 'images', found are x"),
        ({"images": IMAGES.astype(float)}, "images are float64"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, "has 256 images but 3 labels"),
        ({"images": np.array(["a", "b"])}, "the array 'images' is <U1"),
    ],
)
def test_wrong_images_leave_nothing(arrays, words, jstar, write, tmp_path):
    write(dataset={"name": "m", "source": "npz", "path": "m.npz", "limit": None})
    np.savez(tmp_path / "m.npz", **arrays)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = jstar("prepare", "--config", "s.yaml")
    assert (status, out) == (2, ""), err
    sentence = err.splitlines()[-1]
    assert sentence.startswith("jstar: ")
    assert words in sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_the_files_of_the_table_are_right_as_they_are(jstar, write, tmp_path):
    write()
    assert jstar("check", "--config", "s.yaml")[0] == 0
    assert jstar("check", "--text", json.dumps(yaml.safe_load(open("s.yaml"))))[0] == 0  # noqa: SIM115


def test_a_key_that_yaml_repeats_is_named_with_its_lines(jstar, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("study: a\ntrain:\n  batch: 1\n  ema: [0.1]\n  batch: 2\nstudy: b\n")
    status, _, err = jstar("check", "--config", path)
    assert status == 2
    assert err == (
        f"jstar: {path}: the key 'batch' is given twice, at lines 3 and 5; the key 'study' is "
        "given twice, at lines 1 and 6\n"
    )


def test_a_merged_mapping_may_say_a_key_otherwise(tmp_path):
    from jstar.config.reading import read_yaml

    path = tmp_path / "s.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}\n")
    assert read_yaml(path)["c"] == {"x": 4, "y": 2}


def test_version_and_help(jstar):
    import jstar as package

    assert jstar("--version") == (0, f"jstar {package.__version__}\n", "")
    assert jstar("-h")[1] == jstar("--help")[1]
    assert "--shard" in jstar("optimal", "-h")[1]
    status, _, err = jstar()
    assert status == 2
    assert err.count("jstar: ") == 0


FORMATS = {
    "comma": (",", ".", []),
    "semicolon": (";", ".", ["columns are separated by a semicolon"]),
    "TAB": ("\t", ".", ["columns are separated by a TAB"]),
    "semicolon and decimal commas": (";", ",", ["a semicolon", "commas in "]),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_tables_of_any_separator_and_case_are_read_and_said(name, case, tmp_path, capsys):
    from jstar.curve import read_curve
    from jstar.scaling.inputs import data_word, read_losses

    separator, decimal, said = FORMATS[name]
    frame = losses_table().assign(tokens=np.arange(8) + 1.5)
    path = tmp_path / "l.csv"
    frame.rename(columns=case).to_csv(
        path, sep=separator, decimal=decimal, index=False, encoding="utf-8-sig"
    )
    # Values first: what is said is worth nothing beside a number that is read wrongly.
    read = read_losses([path])
    for column in ("params", "flops", "loss"):
        assert read[column].tolist() == pytest.approx(frame[column].tolist(), rel=1e-12)
    assert read["images"].tolist() == frame["tokens"].tolist()
    assert (read["run"] == frame["run"]).all()
    err = capsys.readouterr().err
    assert (err == "") == (name == "comma" and case is str.lower)
    for words in [*said, *(["read in lower case (RUN, PARAMS"] if case is str.upper else [])]:
        assert words in err
    assert data_word([path]) == "tokens"
    assert capsys.readouterr().err == ""
    losses_table().iloc[:2][["sigma", "loss"]].rename(columns=case).to_csv(
        path, sep=separator, decimal=decimal, index=False
    )
    assert read_curve(path).loss == pytest.approx([0.06, 0.25])
