# The study on one page, made from its tables and pictures; it needs no network to be read.
rule report:
    input:
        DRAWN,
        TUNING,
        SAMPLES,
        NOISE_LAWS,
        LAYOUT.data / "card.json",
        [LAYOUT.run(*run) / "run.json" for run in STUDY.runs()],
        LAYOUT.verified,
    output:
        LAYOUT.report,
    log:
        LAYOUT.logs / "report.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        f"jstar report --config ${VARIABLE} > {{log}} 2>&1"


# Snakemake's own report of everything that is marked `report(...)`, with the captions, the rules and
# their times: snakemake --cores 1 snakemake_report. A second Snakemake writes it from the metadata of
# the finished jobs, hence --nolock. It does not mind what docutils complains about, the check does.
rule snakemake_report:
    input:
        DRAWN,
        TUNING,
        SAMPLES,
        NOISE_LAWS,
        LAYOUT.verified,
    output:
        LAYOUT.snakemake_report,
    log:
        LAYOUT.logs / "snakemake-report.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        targets=" ".join(
            [
                *map(str, DRAWN),
                *["sampling"][: len(SAMPLES)],
                *map(str, TUNING + NOISE_LAWS),
            ]
        ),
    shell:
        f"snakemake {{params.targets}} --snakefile {SNAKEFILE} --configfile ${VARIABLE} --cores 1"
        " --nolock --report {output}"
        " > {log} 2>&1 && jstar report-check {output} 2>> {log}"
