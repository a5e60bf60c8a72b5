# The optimal loss of the dataset, once, whatever studies use it; and the oracle set.
if STUDY.optimal.shards == 1:

    rule optimal:
        input:
            card="results/data/{dataset}/card.json",
            images=ancient("results/data/{dataset}/images.npy"),
        output:
            multiext("results/optimal/{dataset}/curve", ".csv", ".json"),
        log:
            "results/optimal/{dataset}/curve.log",
        cache: True
        conda:
            "../../envs/cpu.yaml"
        threads: STUDY.resources.optimal_threads
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            "jstar optimal --config $JSTAR_STUDY --threads {threads} 2> {log}"

else:

    # The sums over a share of the points each, added in the order of their numbers.
    rule optimal_shard:
        input:
            card="results/data/{dataset}/card.json",
            images=ancient("results/data/{dataset}/images.npy"),
        output:
            "results/optimal/{dataset}/shards/{shard}-of-{shards}.npz",
        log:
            "results/optimal/{dataset}/shards/{shard}-of-{shards}.log",
        wildcard_constraints:
            shard=r"\d+",
            shards=r"\d+",
        conda:
            "../../envs/cpu.yaml"
        threads: STUDY.resources.optimal_threads
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            "jstar optimal --config $JSTAR_STUDY --shard {wildcards.shard}/{wildcards.shards} "
            "--threads {threads} 2> {log}"

    rule optimal:
        input:
            card="results/data/{dataset}/card.json",
            images=ancient("results/data/{dataset}/images.npy"),
            shards=expand(
                "results/optimal/{{dataset}}/shards/{shard}-of-{shards}.npz",
                shard=range(1, STUDY.optimal.shards + 1),
                shards=STUDY.optimal.shards,
            ),
        output:
            multiext("results/optimal/{dataset}/curve", ".csv", ".json"),
        log:
            "results/optimal/{dataset}/curve.log",
        conda:
            "../../envs/cpu.yaml"
        resources:
            mem_mb=STUDY.resources.optimal_mem_mb,
        params:
            content=STUDY.content("optimal"),
        shell:
            "jstar optimal-merge --config $JSTAR_STUDY {input.shards} 2> {log}"


rule oracle:
    input:
        card="results/data/{dataset}/card.json",
        images=ancient("results/data/{dataset}/images.npy"),
    output:
        info="results/optimal/{dataset}/oracle/oracle.json",
        draws="results/optimal/{dataset}/oracle/index.npy",
        means="results/optimal/{dataset}/oracle/posterior_mean.npy",
    log:
        "results/optimal/{dataset}/oracle.log",
    conda:
        "../../envs/cpu.yaml"
    threads: STUDY.resources.optimal_threads
    resources:
        mem_mb=STUDY.resources.optimal_mem_mb,
    params:
        content=STUDY.content("oracle"),
    shell:
        "jstar oracle --config $JSTAR_STUDY --threads {threads} 2> {log}"
