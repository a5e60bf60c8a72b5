# Images of the snapshots, their quality and the sampling theory. `all` has them where the study
# says sample.enabled; the target `sample` makes them for any study.
from pathlib import Path

SAMPLE_REFERENCE = (
    f"results/quality/{STUDY.dataset.name}/{Path(STUDY.sample.features).stem}"
)
SAMPLE_TABLES = ["quality", "correlation", "bounds", "schedules", "theory_quality"]
SAMPLE_FIGURES = ["samples", "gap_quality", "theory"]


# The data's own features: once, before the runs are compared with them side by side.
rule features:
    input:
        card=f"results/data/{STUDY.dataset.name}/card.json",
        images=ancient(f"results/data/{STUDY.dataset.name}/images.npy"),
    output:
        multiext(SAMPLE_REFERENCE, ".json", ".npz"),
    log:
        f"results/quality/{STUDY.dataset.name}/features.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        features=STUDY.sample.features,
    shell:
        "jstar features --config $JSTAR_STUDY --threads 1 2> {log}"


rule sample_run:
    input:
        run="results/runs/{study}/{model}-s{seed}/run.json",
        snapshots=ancient("results/runs/{study}/{model}-s{seed}/snapshots"),
        features=f"{SAMPLE_REFERENCE}.json",
        images=ancient(f"results/data/{STUDY.dataset.name}/images.npy"),
    output:
        multiext("results/runs/{study}/{model}-s{seed}/quality", ".csv", ".json"),
        "results/runs/{study}/{model}-s{seed}/samples.npz",
    log:
        "results/runs/{study}/{model}-s{seed}/sample.log",
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.train_threads
    resources:
        **allocation(min(1, STUDY.resources.train_gpus)),
        mem_mb=STUDY.resources.train_mem_mb,
    params:
        content=STUDY.content("sample"),
    shell:
        "jstar sample --config $JSTAR_STUDY --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"


rule quality:
    input:
        quality=expand("results/runs/{{study}}/{run}/quality.csv", run=RUNS),
        samples=expand("results/runs/{{study}}/{run}/samples.npz", run=RUNS),
        losses=expand("results/runs/{{study}}/{run}/losses.csv", run=RUNS),
    output:
        expand(
            "results/studies/{{study}}/sampling/{table}.csv",
            table=SAMPLE_TABLES[:2],
        ),
        "results/studies/{study}/sampling/samples.pdf",
        expand(
            "results/studies/{{study}}/sampling/gap_quality.{suffix}",
            suffix=["pdf", "json"],
        ),
        report(
            "results/studies/{study}/sampling/samples.png",
            caption="../report/samples.rst",
            category="Samples",
        ),
        report(
            "results/studies/{study}/sampling/gap_quality.png",
            caption="../report/gap_quality.rst",
            category="Samples",
        ),
    log:
        "results/studies/{study}/logs/quality.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    shell:
        "jstar quality --config $JSTAR_STUDY 2> {log}"


rule theory:
    input:
        quality=expand("results/runs/{{study}}/{run}/quality.csv", run=RUNS),
        losses=expand("results/runs/{{study}}/{run}/losses.csv", run=RUNS),
        curve=f"results/optimal/{STUDY.dataset.name}/curve.csv",
    output:
        expand(
            "results/studies/{{study}}/sampling/{table}.csv",
            table=SAMPLE_TABLES[2:],
        ),
        expand(
            "results/studies/{{study}}/sampling/theory.{suffix}",
            suffix=["pdf", "json"],
        ),
        report(
            "results/studies/{study}/sampling/theory.png",
            caption="../report/theory.rst",
            category="Samples",
        ),
    log:
        "results/studies/{study}/logs/theory.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("sample"),
    shell:
        "jstar theory --config $JSTAR_STUDY 2> {log}"


rule sample:
    input:
        expand(
            "results/studies/{study}/sampling/{figure}.png",
            study=STUDY.study,
            figure=SAMPLE_FIGURES,
        ),
    localrule: True


SAMPLES = list(rules.sample.input) if STUDY.sample.enabled else []
