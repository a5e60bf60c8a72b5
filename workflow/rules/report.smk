# Snakemake's own report of everything that is marked `report(...)`, as one self-contained page.
# A second Snakemake writes it from the metadata of the finished jobs, hence --nolock. It does not
# mind what docutils complains about, the check does.
rule report:
    input:
        rules.figures.input,
        TUNING,
        SAMPLES,
        NOISE_LAWS,
        LAYOUT.verified,
    output:
        LAYOUT.report,
    log:
        LAYOUT.logs / "report.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        targets=" ".join(
            [
                "figures",
                *["sampling"][: len(SAMPLES)],
                *map(str, TUNING + NOISE_LAWS),
            ]
        ),
    shell:
        "snakemake {params.targets} --configfile $JSTAR_STUDY --cores 1 --nolock --report {output}"
        " > {log} 2>&1 && jstar report-check {output} 2>> {log}"
