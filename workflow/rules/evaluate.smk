# Loss and direct gap of every snapshot, on the same images and noise for all models.
rule evaluate:
    input:
        run="results/runs/{study}/{model}-s{seed}/run.json",
        snapshots=ancient("results/runs/{study}/{model}-s{seed}/snapshots"),
        oracle=f"results/optimal/{STUDY.dataset.name}/oracle/oracle.json",
        images=ancient(f"results/data/{STUDY.dataset.name}/images.npy"),
    output:
        multiext("results/runs/{study}/{model}-s{seed}/losses", ".csv", ".json"),
    log:
        "results/runs/{study}/{model}-s{seed}/evaluate.log",
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.train_threads
    resources:
        **allocation(min(1, STUDY.resources.train_gpus)),
        mem_mb=STUDY.resources.train_mem_mb,
    params:
        content=STUDY.content("evaluate"),
    shell:
        "jstar evaluate --config $JSTAR_STUDY --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"
