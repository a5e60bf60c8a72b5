"""Training by the optimal-loss noise law, as the workflow sees it."""

from project import copy_project, snakemake, write_study

LAW = "noise_law.csv"


def job(text, rule):
    """The lines of one rule in a dry run."""
    return text.split(f"rule {rule}:")[1].split("\n\n")[0]


def test_only_runs_with_the_law_wait_for_the_optimal_loss(tmp_path):
    folder = copy_project(tmp_path / "project")
    variant = {"process": "edm", "noise": {"law": "optimal_loss"}}
    ladder = [{"name": "own", "depth": 1}, {"name": "new", "depth": 1, "variant": variant}]
    config = write_study(folder, kind="variants", ladder=ladder)
    text = snakemake(folder, "-n", "--configfile", config).stdout
    assert "curve.csv" in job(text, "train_new")
    assert LAW in job(text, "train_new")
    assert "curve.csv" not in job(text, "train_own")
    assert LAW not in job(text, "train_own")
    assert f"runs/tiny/new-s0/{LAW}" in job(text, "variants_noise_laws")
    write_study(folder, kind="variants", ladder=ladder[:1])
    assert "noise_laws" not in snakemake(folder, "-n", "--configfile", config).stdout
