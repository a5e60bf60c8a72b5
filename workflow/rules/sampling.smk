# Images of the snapshots, their quality and the sampling theory. `all` has them where the study
# says sampling.enabled; the target `sampling` makes them for any study.
from pathlib import Path

FEATURES = LAYOUT.features / f"{Path(STUDY.sampling.features).stem}.json"


# The data's own features: once, before the runs are compared with them side by side.
rule sampling_features:
    input:
        card=LAYOUT.data / "card.json",
        images=ancient(LAYOUT.data / "images.npy"),
    output:
        FEATURES,
        FEATURES.with_suffix(".npz"),
    log:
        LAYOUT.features / "features.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        features=STUDY.sampling.features,
    shell:
        f"jstar sampling features --config ${VARIABLE} --threads 1 2> {{log}}"


rule sampling_draw:
    input:
        run=RUN / "run.json",
        snapshots=ancient(RUN / "snapshots"),
        features=FEATURES,
        images=ancient(LAYOUT.data / "images.npy"),
    output:
        table=LAYOUT.quality("{model}", "{seed}"),
        facts=LAYOUT.quality("{model}", "{seed}").with_suffix(".json"),
        samples=RUN / "samples.npz",
    log:
        RUN / "sampling.log",
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.train_threads
    resources:
        **allocation(min(1, STUDY.resources.train_gpus)),
        mem_mb=STUDY.resources.train_mem_mb,
    params:
        content=STUDY.content("sampling"),
    shell:
        f"jstar sampling draw --config ${VARIABLE}"
        " --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"


rule sampling_quality:
    input:
        quality=QUALITY,
        samples=[table.with_name("samples.npz") for table in QUALITY],
        losses=LOSSES,
    output:
        [LAYOUT.sampling / f"{table}.csv" for table in ("quality", "correlation")],
        LAYOUT.sampling / "samples.pdf",
        [LAYOUT.sampling / f"gap_quality.{end}" for end in ("pdf", "json")],
        report(
            LAYOUT.sampling / "samples.png",
            caption="../report/samples.rst",
            category="Samples",
        ),
        report(
            LAYOUT.sampling / "gap_quality.png",
            caption="../report/gap_quality.rst",
            category="Samples",
        ),
    log:
        LAYOUT.logs / "sampling-quality.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        f"jstar sampling quality --config ${VARIABLE} 2> {{log}}"


rule sampling_theory:
    input:
        quality=QUALITY,
        losses=LOSSES,
        curve=LAYOUT.curve,
    output:
        [LAYOUT.sampling / f"{t}.csv" for t in ("bounds", "steps", "theory_quality")],
        [LAYOUT.sampling / f"theory.{end}" for end in ("pdf", "json")],
        report(
            LAYOUT.sampling / "theory.png",
            caption="../report/theory.rst",
            category="Samples",
        ),
    log:
        LAYOUT.logs / "sampling-theory.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("sampling"),
    shell:
        f"jstar sampling theory --config ${VARIABLE} 2> {{log}}"


rule sampling:
    input:
        [LAYOUT.sampling / f"{f}.png" for f in ("samples", "gap_quality", "theory")],
    localrule: True


SAMPLES = list(rules.sampling.input) if STUDY.sampling.enabled else []
