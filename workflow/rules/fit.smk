# Frontier, the three laws, intervals and verdicts, for every noise scale and for the total loss.
from jstar.layout import FIT_TABLES, PAPER_TABLES

STUDY_TABLES = [
    *(LAYOUT.fits / f"{table}.csv" for table in FIT_TABLES),
    LAYOUT.fits / "fits.json",
]
NOTEBOOKS = ["inspect_fits"]


rule fit:
    input:
        losses=LOSSES,
        curve=LAYOUT.curve,
        tune=TUNING[:1],
    output:
        STUDY_TABLES,
        [
            LAYOUT.fits / f"tables/{t}.{end}"
            for t in PAPER_TABLES
            for end in ("md", "tex")
        ],
    log:
        LAYOUT.logs / "fit.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("fit"),
    shell:
        f"jstar fit --config ${VARIABLE} 2> {{log}}"
