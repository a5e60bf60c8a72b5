"""The cells of the damage test: name -> (file that is named, damage, next command, words)."""

import json
import re

from damages import cut, empty, flip, fortran, rewrite, shuffle, zeros

COMMANDS = {
    "optimal": lambda p: ("optimal", *p.options()),
    "oracle": lambda p: ("oracle", *p.options()),
    "train": lambda p: ("train", *p.options(), "--model", "d1", "--device", "cpu", "--threads", 1),
    "evaluate": lambda p: ("evaluate", *p.options(), "--model", "d1", "--device", "cpu"),
    "fit": lambda p: ("fit", *p.options()),
    "figure": lambda p: ("figures", "optimal_loss", *p.options()),
    "theory": lambda p: ("sampling", "theory", *p.options()),
    "status": lambda p: ("status", *p.options()),
    "diagnose": lambda p: (
        "diagnose", "--run", p / "runs/tiny/d1-s0", "--dataset", p / "data/digits",
        "--optimal", p / "optimal/digits", "--out", p.folder / "diagnosis",
    ),
}  # fmt: skip
DATA, OPTIMAL, RUN, FITS = "data/digits", "optimal/digits", "runs/tiny/d1-s0", "studies/tiny"
SNAPSHOTS = f"{RUN}/snapshots"
STATE = "state/tiny/d1-s0/snapshots"
DAMAGED = "damaged"


def at(path, damage):
    """Damage of one file of the copy."""
    return lambda place, other: damage(place / path)


def foreign(*paths):
    """Files of the other study in the place of the copy's."""

    def put(place, other):
        for path in paths:
            rewrite(place / path, (other / path).read_bytes())

    return put


def swap(first, second):
    """Two files in each other's place."""

    def put(place, other):
        one, two = (place / first).read_bytes(), (place / second).read_bytes()
        rewrite(place / first, two)
        rewrite(place / second, one)

    return put


def edited(pattern, by):
    """Text, changed at the first place that matches."""

    def change(path):
        text, count = re.subn(pattern, by, path.read_text(), count=1)
        assert count == 1
        rewrite(path, text.encode())

    return change


def number(column, change, row=3):
    """A cell of a table, changed."""

    def write(path):
        lines = path.read_text().splitlines()
        place, cells = lines[0].split(",").index(column), lines[row].split(",")
        cells[place] = change(cells[place])
        lines[row] = ",".join(cells)
        rewrite(path, ("\n".join(lines) + "\n").encode())

    return write


def key(name, value):
    """A key of a .json, changed (None: removed)."""

    def write(path):
        facts = json.loads(path.read_text())
        if value is None:
            facts.pop(name)
        else:
            facts[name] = value(facts[name])
        rewrite(path, (json.dumps(facts, indent=2) + "\n").encode())

    return write


def unsealed(change):
    """The .json changed, and its seal and checksums removed: as an older jstar would leave it."""

    def write(path):
        change(path)
        for name in ("made", "seal"):
            key(name, None)(path)

    return write


def without_last_rows(path):
    lines = path.read_text().splitlines(keepends=True)
    rewrite(path, "".join(lines[: len(lines) * 2 // 3]).encode())


def without_last_digit(path):
    rewrite(path, path.read_bytes().rstrip()[:-1] + b"\n")


def _cases():
    def cell(what, how, path, damage, commands, words=DAMAGED):
        for command in commands.split():
            name = path.rpartition("/")[2]
            yield f"{what}: {how}, {command}", (name, damage, command, words)

    def cells(what, path, damages, commands, words=DAMAGED):
        for how, damage in damages.items():
            yield from cell(what, how, path, at(path, damage), commands, words)

    arrays = {"a bit": flip, "cut": cut, "zeros": zeros, "shuffled": shuffle}
    of_array = rf"{DAMAGED}|cannot be read"
    yield from cells("images", f"{DATA}/images.npy", {**arrays, "another order": fortran},
                     "optimal oracle train evaluate", rf"{of_array}|the card says")  # fmt: skip
    yield from cell("images", "foreign", f"{DATA}/images.npy", foreign(f"{DATA}/images.npy"),
                    "optimal evaluate", "the card says")  # fmt: skip
    yield from cells("held-out", f"{DATA}/holdout_images.npy", arrays, "evaluate", of_array)
    yield from cell("held-out", "foreign", f"{DATA}/holdout_images.npy",
                    foreign(f"{DATA}/holdout_images.npy"), "evaluate")  # fmt: skip
    yield from cells("labels", f"{DATA}/labels.npy", arrays, "evaluate", of_array)
    yield from cells("held-out labels", f"{DATA}/holdout_labels.npy", arrays, "evaluate", of_array)
    cards = {"a bit": flip, "cut": cut, "empty": empty, "edited": key("std", lambda v: 2 * v)}
    yield from cells("card", f"{DATA}/card.json", cards, "optimal train evaluate",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip
    yield from cell("card", "foreign", f"{DATA}/images.npy", foreign(f"{DATA}/card.json"),
                    "evaluate", "the card says")  # fmt: skip
    yield from cells("means", f"{OPTIMAL}/oracle/posterior_mean.npy", arrays, "evaluate diagnose")
    yield from cells("draws", f"{OPTIMAL}/oracle/index.npy", arrays, "evaluate diagnose")
    yield from cells("mirrored", f"{OPTIMAL}/oracle/mirrored.npy", {"a bit": flip}, "evaluate")
    oracle = {
        "another seed": key("seed", lambda v: v + 1),
        "another sigma": key("sigma", lambda v: [2 * v[0], *v[1:]]),
        "cut": cut,
        "without card": key("card_id", None),
    }
    yield from cells("oracle", f"{OPTIMAL}/oracle/oracle.json", oracle, "evaluate",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip
    yield "oracle: an older one without card, evaluate", (
        "oracle", at(f"{OPTIMAL}/oracle/oracle.json", unsealed(key("card_id", None))),
        "evaluate", "not a complete oracle set",
    )  # fmt: skip
    whole_oracle = [f"{OPTIMAL}/oracle/{n}" for n in
                    ("oracle.json", "index.npy", "mirrored.npy", "posterior_mean.npy")]  # fmt: skip
    yield from cell("oracle", "foreign", "optimal/digits/oracle", foreign(*whole_oracle),
                    "evaluate diagnose", "belongs to training distribution")  # fmt: skip

    networks = {"a bit": flip, "cut": cut, "zeros": zeros, "empty": empty}
    yield from cells("snapshot", f"{SNAPSHOTS}/002.safetensors", networks, "evaluate diagnose")
    yield from cell("snapshot", "swapped", "000.safetensors",
                    swap(f"{SNAPSHOTS}/000.safetensors", f"{SNAPSHOTS}/001.safetensors"),
                    "evaluate")  # fmt: skip
    size = swap(f"{SNAPSHOTS}/002.safetensors", "runs/tiny/d2-s0/snapshots/002.safetensors")
    yield from cell("snapshot", "of another size", "002.safetensors", size, "evaluate diagnose")

    def older(place, other):
        size(place, other)
        for name in ("made", "seal"):
            key(name, None)(place / f"{RUN}/run.json")

    yield from cell("snapshot", "of another size in an older run", "002.safetensors", older,
                    "diagnose", "has the shape|cannot be read")  # fmt: skip
    runs = {
        "edited size": key("params", lambda v: v + 1),
        "edited FLOPs": edited(r'"flops": [\d.e+]+', '"flops": 1.0'),
        "cut": cut,
        "empty": empty,
    }
    yield from cells("run", f"{RUN}/run.json", runs, "evaluate diagnose status",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip
    yield from cell("run", "foreign", "d1-s0", foreign(
        f"{RUN}/run.json", *(f"{SNAPSHOTS}/{k:03d}.safetensors" for k in range(3))),
        "evaluate", "belongs to training distribution")  # fmt: skip

    losses = {
        "a bit": flip, "cut": cut, "lost rows": without_last_rows,
        "FLOPs times 1000": number("flops", lambda v: f"{1000 * float(v):g}"),
        "a loss twice": number("loss", lambda v: f"{2 * float(v):.9g}"),
    }  # fmt: skip
    yield from cells("losses", f"{RUN}/losses.csv", losses, "fit theory")
    pairs = [(f"{RUN}/losses.{e}", f"runs/tiny/d1-s1/losses.{e}") for e in ("csv", "json")]

    def swapped(place, other):
        for pair in pairs:
            swap(*pair)(place, other)

    yield from cell("losses", "swapped", "losses.csv", swapped, "fit theory", "is of run 'd1-s1'")
    yield from cell("losses", "foreign", "losses.csv",
                    foreign(*(f"{RUN}/losses.{e}" for e in ("csv", "json"))),
                    "fit theory", "fingerprint|training distribution")  # fmt: skip
    facts = {"edited": key("card_id", lambda v: "0" * 16), "cut": cut, "empty": empty}
    yield from cells("record of losses", f"{RUN}/losses.json", facts, "fit theory",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip

    curves = {
        "a bit": flip, "lost rows": without_last_rows, "last digit cut": without_last_digit,
        "edited": number("loss", lambda v: f"{1.01 * float(v):.9g}"),
    }  # fmt: skip
    yield from cells("curve", f"{OPTIMAL}/curve.csv", curves, "fit figure theory diagnose")
    yield from cells("curve", f"{OPTIMAL}/curve.csv", curves, "status")
    both = foreign(f"{OPTIMAL}/curve.csv", f"{OPTIMAL}/curve.json")
    yield from cell("curve", "foreign", "curve.csv", both, "fit theory diagnose",
                    "training distribution [0-9a-f]{16}.* [0-9a-f]{16}")  # fmt: skip
    yield from cell("curve", "foreign", "curve.csv", both, "figure", "the fits in .* were made")
    yield from cell("curve", "foreign without its record", "curve.csv",
                    foreign(f"{OPTIMAL}/curve.csv"), "fit figure")  # fmt: skip
    yield from cells("record of the curve", f"{OPTIMAL}/curve.json", facts, "fit figure",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip

    fits = {
        "a bit": flip, "cut": cut, "lost rows": without_last_rows,
        "edited": number("alpha", lambda v: f"{2 * float(v or 1):.9g}"),
    }  # fmt: skip
    yield from cells("fits", f"{FITS}/fits.csv", fits, "figure")
    yield from cells("verdicts", f"{FITS}/verdicts.csv", {"a bit": flip, "cut": cut}, "figure")
    yield from cells("fits.json", f"{FITS}/fits.json", {"a bit": flip, "cut": cut}, "figure",
                     rf"{DAMAGED}|not valid JSON")  # fmt: skip

    def other_fit(place, other):
        """A table of another fit, without the record that lies beside it."""
        number("loss", lambda v: f"{2 * float(v):.9g}")(place / f"{FITS}/frontier.csv")
        (place / f"{FITS}/frontier.json").unlink()

    yield from cell("frontier", "of another fit", "frontier.csv", other_fit, "figure")

    # The state of a run and what was published of it are one file under two names.
    def both_names(damage):
        def change(place, other):
            damage(place / f"{STATE}/001.safetensors")
            damage(place / f"{SNAPSHOTS}/001.safetensors")

        return change

    for how, damage in networks.items():
        yield from cell("state", how, "001.safetensors", both_names(damage), "train",
                        "holds no whole copy of it; nothing was changed")  # fmt: skip
    yield from cell("state", "lost", "001.safetensors",
                    both_names(lambda path: path.unlink()), "train", "is missing")  # fmt: skip


CASES = dict(_cases())
