# Frontier, the three laws, intervals and verdicts, for every noise scale and for the total loss.
from jstar.layout import FIT_TABLES, PAPER_TABLES

STUDY_TABLES = [
    *(f"results/studies/{STUDY.study}/{table}.csv" for table in FIT_TABLES),
    f"results/studies/{STUDY.study}/fits.json",
]
NOTEBOOKS = ["inspect_fits"]


rule fit:
    input:
        losses=expand("results/runs/{{study}}/{run}/losses.csv", run=RUNS),
        curve=f"results/optimal/{STUDY.dataset.name}/curve.csv",
    output:
        expand("results/studies/{{study}}/{table}.csv", table=FIT_TABLES),
        expand(
            "results/studies/{{study}}/tables/{table}.{suffix}",
            table=PAPER_TABLES,
            suffix=["md", "tex"],
        ),
        "results/studies/{study}/fits.json",
    log:
        "results/studies/{study}/logs/fit.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("fit"),
    shell:
        "jstar fit --config $JSTAR_STUDY 2> {log}"
