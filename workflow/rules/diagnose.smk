# The variants of a diagnosis study side by side: their losses and gaps against one floor.
STUDY_TABLES = [
    f"results/studies/{STUDY.study}/{table}"
    for table in ("losses.csv", "diagnosis.csv", "diagnosis.json")
]
NOTEBOOKS = []


rule diagnose:
    input:
        losses=expand("results/runs/{{study}}/{run}/losses.csv", run=RUNS),
        curve=f"results/optimal/{STUDY.dataset.name}/curve.csv",
    output:
        multiext("results/studies/{study}/losses", ".csv", ".json"),
        multiext("results/studies/{study}/diagnosis", ".csv", ".json"),
        "results/studies/{study}/tables/diagnosis.tex",
        table=report(
            "results/studies/{study}/tables/diagnosis.md",
            caption="../report/diagnosis.rst",
            category="Tables",
        ),
    log:
        "results/studies/{study}/logs/diagnose.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("diagnose"),
    shell:
        "jstar diagnose --config $JSTAR_STUDY 2> {log}"
