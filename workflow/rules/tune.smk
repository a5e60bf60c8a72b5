# The learning rate of every size that does not give it, by short trials of the same trainer. Like a
# run's, the trials' state lies in a folder that no rule declares. rate.json holds nothing but what
# a run depends on: while that stays the same, nothing trains again.
TUNED = {}

for rank, entry in enumerate(STUDY.ladder):
    if entry.name not in STUDY.tuned_models:
        continue
    TUNED[entry.name] = LAYOUT.rate(entry.name)

    rule:
        name:
            f"tune_{entry.name}".replace("-", "_").replace(".", "_")
        input:
            card=LAYOUT.data / "card.json",
            images=ancient(LAYOUT.data / "images.npy"),
            oracle=LAYOUT.oracle / "oracle.json",
            curve=LAYOUT.curve if STUDY.train_of(entry.name).noise else [],
        output:
            LAYOUT.trials(entry.name),
            LAYOUT.trials(entry.name).with_suffix(".json"),
            rate=LAYOUT.rate(entry.name),
        log:
            LAYOUT.rate(entry.name).with_name("tune.log"),
        priority: rank + 1
        conda:
            "../../envs/cpu.yaml"
        threads: STUDY.resources.train_threads
        resources:
            **allocation(STUDY.resources.train_gpus, STUDY.resources.train_nodes),
            mem_mb=STUDY.resources.train_mem_mb,
            runtime=STUDY.resources.train_minutes,
        params:
            content=STUDY.content("tune", entry.name),
            model=entry.name,
        shell:
            f"exec jstar tune --config ${VARIABLE} --model {{params.model}}"
            f" --threads {{threads}} {REQUEUE} 2> {{log}}"


# Only where something is tuned, so that the report of other studies does not speak of it.
TUNING = []

if TUNED:
    TUNING = [LAYOUT.tune / "tune.csv", LAYOUT.tune / "tune.png"]

    rule tune:
        input:
            list(TUNED.values()),
            [LAYOUT.trials(model) for model in TUNED],
        output:
            [
                LAYOUT.tune / f"{table}.{end}"
                for table in ("tune", "trials")
                for end in ("csv", "json")
            ],
            LAYOUT.tune / "tune.pdf",
            report(
                LAYOUT.tune / "tune.png",
                caption="../report/tune.rst",
                category="Tuning",
            ),
        log:
            LAYOUT.logs / "tune.log",
        localrule: True
        conda:
            "../../envs/cpu.yaml"
        shell:
            f"jstar tune --config ${VARIABLE} 2> {{log}}"
