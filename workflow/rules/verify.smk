# Every file of the study against the record of what was made, before it goes into the report. The
# same at any time later: jstar verify --config config/<study>.yaml
rule verify:
    input:
        DRAWN,
        TUNING,
        SAMPLES,
        NOISE_LAWS,
    output:
        LAYOUT.verified,
    log:
        LAYOUT.logs / "verify.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        f"jstar verify --config ${VARIABLE} --out {{output}} > {{log}} 2>&1"
