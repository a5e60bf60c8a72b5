# Images and labels as memory-mapped arrays, and the card that identifies the distribution.
rule prepare:
    input:
        source=ancient(STUDY.dataset.path or []),
    output:
        images=LAYOUT.data / "images.npy",
        labels=LAYOUT.data / "labels.npy",
        card=LAYOUT.data / "card.json",
        samples=report(
            LAYOUT.data / "samples.png",
            caption="../report/data.rst",
            category="Data",
            labels={"figure": "samples of the data"},
        ),
    log:
        LAYOUT.data / "prepare.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        content=STUDY.content("prepare"),
    shell:
        f"jstar prepare --config ${VARIABLE} 2> {{log}}"
