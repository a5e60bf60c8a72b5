# One job a size and seed. The resumable state lies in a folder that no rule declares:
# Snakemake deletes the declared outputs of a job that is killed. One rule a size, because only so
# can the longest runs start first and a profile give each size its own resources.
for rank, entry in enumerate(STUDY.ladder):
    run = LAYOUT.run(entry.name, "{seed}")
    # A run whose noise law follows the gap needs J*, and leaves its law.
    follows = STUDY.train_of(entry.name).noise is not None

    rule:
        name:
            f"train_{entry.name}".replace("-", "_").replace(".", "_")
        input:
            card=LAYOUT.data / "card.json",
            images=ancient(LAYOUT.data / "images.npy"),
            curve=LAYOUT.curve if follows else [],
            rate=TUNED.get(entry.name, []),
        output:
            [LAYOUT.noise_law(entry.name, "{seed}")] if follows else [],
            run=run / "run.json",
            telemetry=run / "telemetry.csv",
            snapshots=directory(run / "snapshots"),
        log:
            run / "train.log",
        priority: rank + 1
        conda:
            "../../envs/cpu.yaml"
        threads: STUDY.resources.train_threads
        resources:
            **allocation(STUDY.resources.train_gpus, STUDY.resources.train_nodes),
            mem_mb=STUDY.resources.train_mem_mb,
            runtime=STUDY.resources.train_minutes,
        params:
            content=STUDY.content("train", entry.name),
            model=entry.name,
        # exec: a signal to the job must not end a shell in between while the trainer still saves.
        shell:
            f"exec jstar train --config ${VARIABLE} --model {{params.model}}"
            f" --seed {{wildcards.seed}} --threads {{threads}} {REQUEUE} 2> {{log}}"
