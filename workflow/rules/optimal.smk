# The optimal loss of the dataset, once, whatever studies use it; and the oracle set.
if STUDY.optimal.shards == 1:

    rule optimal:
        input:
            card=LAYOUT.data / "card.json",
            images=ancient(LAYOUT.data / "images.npy"),
        output:
            multiext(str(LAYOUT.curve.with_suffix("")), ".csv", ".json"),
        log:
            LAYOUT.curve.with_suffix(".log"),
        cache: True
        priority: BEFORE_TRAINING
        conda:
            "../../envs/cpu.yaml"
        threads: OPTIMAL_THREADS
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            f"jstar optimal --config ${VARIABLE} --threads {{threads}} 2> {{log}}"

else:

    SHARD = LAYOUT.shard("{shard}", "{shards}")

    # The sums over a share of the points each, added in the order of their numbers.
    rule optimal_shard:
        input:
            card=LAYOUT.data / "card.json",
            images=ancient(LAYOUT.data / "images.npy"),
        output:
            SHARD,
        log:
            SHARD.with_suffix(".log"),
        wildcard_constraints:
            shard=r"\d+",
            shards=r"\d+",
        priority: BEFORE_TRAINING
        conda:
            "../../envs/cpu.yaml"
        threads: OPTIMAL_THREADS
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            f"jstar optimal --config ${VARIABLE}"
            " --shard {wildcards.shard}/{wildcards.shards} "
            "--threads {threads} 2> {log}"

    rule optimal:
        input:
            card=LAYOUT.data / "card.json",
            images=ancient(LAYOUT.data / "images.npy"),
            shards=[
                LAYOUT.shard(number + 1, STUDY.optimal.shards)
                for number in range(STUDY.optimal.shards)
            ],
        output:
            multiext(str(LAYOUT.curve.with_suffix("")), ".csv", ".json"),
        log:
            LAYOUT.curve.with_suffix(".log"),
        priority: BEFORE_TRAINING
        conda:
            "../../envs/cpu.yaml"
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            f"jstar optimal-merge --config ${VARIABLE} {{input.shards}} 2> {{log}}"


rule oracle:
    input:
        card=LAYOUT.data / "card.json",
        images=ancient(LAYOUT.data / "images.npy"),
    output:
        info=LAYOUT.oracle / "oracle.json",
        draws=LAYOUT.oracle / "index.npy",
        means=LAYOUT.oracle / "posterior_mean.npy",
    log:
        LAYOUT.oracle.with_suffix(".log"),
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.optimal_threads
    resources:
        mem_mb=STUDY.resources.optimal_mem_mb,
    params:
        content=STUDY.content("oracle"),
    shell:
        f"jstar oracle --config ${VARIABLE} --threads {{threads}} 2> {{log}}"
