# The optimal-loss noise law against the processes' own, for studies that train with both.
NOISE_TABLES = ["law", "gaps", "effect"]
COMPARED = [
    f"{model}-s{seed}"
    for model, seed in STUDY.runs()
    if STUDY.train_of(model).noise is not None
]


rule noise:
    input:
        losses=expand("results/runs/{{study}}/{run}/losses.csv", run=RUNS),
        law=expand("results/runs/{{study}}/{run}/noise_law.csv", run=COMPARED),
        quality=(
            expand("results/runs/{{study}}/{run}/quality.csv", run=RUNS)
            if STUDY.sample.enabled
            else []
        ),
        curve=f"results/optimal/{STUDY.dataset.name}/curve.csv",
    output:
        expand(
            "results/studies/{{study}}/noise/{table}.{suffix}",
            table=NOISE_TABLES,
            suffix=["csv", "json"],
        ),
        "results/studies/{study}/noise/effect.md",
        expand("results/studies/{{study}}/noise/{figure}.pdf", figure=["law", "effect"]),
        report(
            "results/studies/{study}/noise/law.png",
            caption="../report/noise_law.rst",
            category="Noise laws",
        ),
        report(
            "results/studies/{study}/noise/effect.png",
            caption="../report/noise_effect.rst",
            category="Noise laws",
        ),
    log:
        "results/studies/{study}/logs/noise.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        "jstar noise --config $JSTAR_STUDY 2> {log}"


NOISE_LAWS = (
    [f"results/studies/{STUDY.study}/noise/effect.png"] if STUDY.noise_pairs() else []
)
