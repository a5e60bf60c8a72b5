# Loss and direct gap of every snapshot, on the same images and noise for all models.
rule evaluate:
    input:
        run=RUN / "run.json",
        snapshots=ancient(RUN / "snapshots"),
        oracle=LAYOUT.oracle / "oracle.json",
        images=ancient(LAYOUT.data / "images.npy"),
    output:
        table=LAYOUT.losses("{model}", "{seed}"),
        facts=LAYOUT.losses("{model}", "{seed}").with_suffix(".json"),
    log:
        RUN / "evaluate.log",
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.train_threads
    resources:
        **allocation(min(1, STUDY.resources.train_gpus)),
        mem_mb=STUDY.resources.train_mem_mb,
    params:
        content=STUDY.content("evaluate"),
    shell:
        f"jstar evaluate --config ${VARIABLE}"
        " --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"
