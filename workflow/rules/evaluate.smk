# Loss and direct gap of every snapshot, on the same images and noise for all models. What is
# measured lies in the run's state, which no rule declares: a job that is ended goes on from there.
EVALUATED = dict(
    run=RUN / "run.json",
    snapshots=ancient(RUN / "snapshots"),
    oracle=LAYOUT.oracle / "oracle.json",
    images=ancient(LAYOUT.data / "images.npy"),
)
SHARES = STUDY.evaluate.shards

if SHARES > 1:

    # Every SHARES-th network of a run.
    rule evaluate_share:
        input:
            **EVALUATED,
        output:
            LAYOUT.losses_share("{model}", "{seed}", "{number}", SHARES),
        log:
            RUN / "evaluate-{number}.log",
        wildcard_constraints:
            number=r"\d+",
        conda:
            "../../envs/cpu.yaml"
        threads: STUDY.resources.train_threads
        resources:
            **allocation(min(1, STUDY.resources.train_gpus)),
            mem_mb=STUDY.resources.train_mem_mb,
            runtime=STUDY.resources.evaluate_minutes,
        params:
            content=STUDY.content("evaluate"),
            shards=SHARES,
        shell:
            "jstar evaluate --config $JSTAR_STUDY --model {wildcards.model}"
            " --seed {wildcards.seed} --shard {wildcards.number}/{params.shards}"
            " --threads {threads} 2> {log}"


rule evaluate:
    input:
        **EVALUATED,
        shares=[
            LAYOUT.losses_share("{model}", "{seed}", number + 1, SHARES)
            for number in range(SHARES)
            if SHARES > 1
        ],
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
        runtime=STUDY.resources.evaluate_minutes,
    params:
        content=STUDY.content("evaluate"),
    shell:
        f"jstar evaluate --config ${VARIABLE}"
        " --model {wildcards.model} --seed {wildcards.seed}"
        " --threads {threads} 2> {log}"
