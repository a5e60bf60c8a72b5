# One rule a figure, so that each has its own caption; each reads result tables only. Seconds each:
# too little to queue for on a cluster, hence localrule.
from jstar.application import application
from jstar.figures import figures_of

COOLDOWN = STUDY.train.cooldown is not None
STUDY_FIGURES = list(figures_of(STUDY.kind, len(STUDY.lengths), COOLDOWN))


for figure in STUDY_FIGURES:

    rule:
        name:
            f"figure_{figure}"
        input:
            STUDY_TABLES,
            LAYOUT.curve,
        output:
            report(
                LAYOUT.figures / f"{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure.replace("_", " ")},
            ),
            LAYOUT.figures / f"{figure}.pdf",
            LAYOUT.figures / f"{figure}.json",
        log:
            LAYOUT.logs / f"figure-{figure}.log",
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        params:
            content=STUDY.content("figures"),
            figure=figure,
        shell:
            f"jstar figures {{params.figure}} --config ${VARIABLE} 2> {{log}}"


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


rule figures:
    input:
        [LAYOUT.figures / f"{f}.{end}" for f in STUDY_FIGURES for end in ("png", "pdf")],
        [LAYOUT.notebooks / f"{notebook}.html" for notebook in NOTEBOOKS],
    localrule: True
