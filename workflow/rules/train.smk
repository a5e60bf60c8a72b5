# One job a size and seed. The resumable state lies in results/state, which no rule declares:
# Snakemake deletes the declared outputs of a job that is killed.
rule train:
    input:
        study=ancient(STUDY_FILE),
        card=f"results/data/{STUDY.dataset.name}/card.json",
        images=ancient(f"results/data/{STUDY.dataset.name}/images.npy"),
    output:
        run="results/runs/{study}/{model}-s{seed}/run.json",
        telemetry="results/runs/{study}/{model}-s{seed}/telemetry.csv",
        snapshots=directory("results/runs/{study}/{model}-s{seed}/snapshots"),
    log:
        "results/runs/{study}/{model}-s{seed}/train.log",
    # The longest runs first: the largest sizes stand last in the ladder.
    priority: 10
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.train_threads
    resources:
        gpu=STUDY.resources.train_gpus,
        mem_mb=STUDY.resources.train_mem_mb,
        runtime=STUDY.resources.train_minutes,
    params:
        content=lambda wildcards: STUDY.content("train", wildcards.model),
    shell:
        "jstar train --config {input.study} --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"
