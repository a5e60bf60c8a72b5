# One rule a figure, so that each has its own caption; each reads result tables only. Seconds each:
# too little to queue for on a cluster, hence localrule.
from jstar.figures import figures_of

STUDY_FIGURES = list(figures_of(STUDY.kind))


for figure in STUDY_FIGURES:

    rule:
        name:
            f"figure_{figure}"
        input:
            STUDY_TABLES,
            f"results/optimal/{STUDY.dataset.name}/curve.csv",
        output:
            report(
                f"results/studies/{{study}}/figures/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure.replace("_", " ")},
            ),
            f"results/studies/{{study}}/figures/{figure}.pdf",
            f"results/studies/{{study}}/figures/{figure}.json",
        log:
            f"results/studies/{{study}}/logs/figure-{figure}.log",
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        params:
            content=STUDY.content("figures"),
            figure=figure,
        shell:
            "jstar figures {params.figure} --config $JSTAR_STUDY 2> {log}"


rule notebook:
    input:
        STUDY_TABLES,
        f"results/optimal/{STUDY.dataset.name}/curve.csv",
        notebook="notebooks/{notebook}.ipynb",
    output:
        report(
            "results/studies/{study}/notebooks/{notebook}.html",
            caption="../report/notebook.rst",
            category="Notebooks",
            labels={"notebook": "{notebook}"},
        ),
    log:
        "results/studies/{study}/logs/{notebook}.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        "jstar notebook {input.notebook} --config $JSTAR_STUDY --out {output} 2> {log}"


rule figures:
    input:
        expand(
            "results/studies/{study}/figures/{figure}.{suffix}",
            study=STUDY.study,
            figure=STUDY_FIGURES,
            suffix=["png", "pdf"],
        ),
        expand(
            "results/studies/{study}/notebooks/{notebook}.html",
            study=STUDY.study,
            notebook=NOTEBOOKS,
        ),
    localrule: True
