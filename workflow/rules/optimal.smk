# The optimal loss of the dataset, once, whatever studies use it; and the oracle set.
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
