# Runs compared: the variants of a study side by side, their losses and gaps against one floor; and
# where a study trains with both, the optimal-loss noise law against the processes' own.
if STUDY.kind == "variants":

    STUDY_TABLES = [
        LAYOUT.variants / name for name in ("losses.csv", "last.csv", "last.json")
    ]
    NOTEBOOKS = []

    rule variants_losses:
        input:
            losses=LOSSES,
            curve=LAYOUT.curve,
        output:
            STUDY_TABLES,
            LAYOUT.variants / "losses.json",
            LAYOUT.variants / "summary.tex",
            table=report(
                LAYOUT.variants / "summary.md",
                caption="../report/variants_summary.rst",
                category="Tables",
            ),
        log:
            LAYOUT.logs / "variants-losses.log",
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        params:
            content=STUDY.content("variants"),
        shell:
            f"jstar variants losses --config ${VARIABLE} 2> {{log}}"


rule variants_noise_laws:
    input:
        losses=LOSSES,
        law=[
            LAYOUT.noise_law(*run)
            for run in STUDY.runs()
            if STUDY.train_of(run[0]).noise
        ],
        quality=QUALITY if STUDY.sampling.enabled else [],
        curve=LAYOUT.curve,
    output:
        [
            LAYOUT.noise_laws / name
            for table in ("law", "gaps", "effect")
            for name in (f"{table}.csv", f"{table}.json")
        ],
        [LAYOUT.noise_laws / name for name in ("effect.md", "law.pdf", "effect.pdf")],
        report(
            LAYOUT.noise_laws / "law.png",
            caption="../report/noise_law.rst",
            category="Noise laws",
        ),
        report(
            LAYOUT.noise_laws / "effect.png",
            caption="../report/noise_effect.rst",
            category="Noise laws",
        ),
    log:
        LAYOUT.logs / "variants-noise-laws.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        f"jstar variants noise-laws --config ${VARIABLE} 2> {{log}}"


NOISE_LAWS = [LAYOUT.noise_laws / "effect.png"] if STUDY.noise_pairs() else []
