# Images and labels as memory-mapped arrays, and the card that identifies the distribution.
rule prepare:
    input:
        source=ancient(STUDY.dataset.path or []),
    output:
        images="results/data/{dataset}/images.npy",
        labels="results/data/{dataset}/labels.npy",
        card="results/data/{dataset}/card.json",
    log:
        "results/data/{dataset}/prepare.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("prepare"),
    shell:
        "jstar prepare --config $JSTAR_STUDY 2> {log}"
