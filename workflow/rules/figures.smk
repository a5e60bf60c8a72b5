# All figures in one job, which reads result tables only: a process a figure would spend most of its
# time on starting. Too little to queue for on a cluster, hence localrule.
from jstar.application import application
from jstar.figures import figures_of

COOLDOWN = STUDY.train.cooldown is not None
STUDY_FIGURES = list(figures_of(STUDY.kind, len(STUDY.lengths), COOLDOWN))


rule figures:
    input:
        STUDY_TABLES,
        LAYOUT.curve,
    output:
        [
            report(
                LAYOUT.figures / f"{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure.replace("_", " ")},
            )
            for figure in STUDY_FIGURES
        ],
        [
            LAYOUT.figures / f"{f}.{end}"
            for f in STUDY_FIGURES
            for end in ("pdf", "json")
        ],
    log:
        LAYOUT.logs / "figures.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("figures"),
        figures=STUDY_FIGURES,
    shell:
        f"jstar figures --config ${VARIABLE} 2> {{log}}"


rule notebook:
    input:
        STUDY_TABLES,
        LAYOUT.curve,
        notebook=str(application() / "notebooks/{notebook}.ipynb"),
    output:
        report(
            LAYOUT.notebooks / "{notebook}.html",
            caption="../report/notebook.rst",
            category="Notebooks",
            labels={"notebook": "{notebook}"},
        ),
    log:
        LAYOUT.logs / "{notebook}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        f"jstar notebook {{input.notebook}} --config ${VARIABLE} --out {{output}} 2> {{log}}"


# What the tables are drawn and shown in.
DRAWN = [
    *rules.figures.output,
    *[LAYOUT.notebooks / f"{notebook}.html" for notebook in NOTEBOOKS],
]
