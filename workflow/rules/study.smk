# Load and check the study; a mistake ends here, in one sentence, before any job starts.
import sys

from jstar.config import Study
from jstar.data.check import check_study
from jstar.errors import JstarError
from jstar.records import read_json

try:
    STUDY = Study.parse(dict(config), str(workflow.configfiles[-1]))
    check_study(STUDY, str(workflow.configfiles[-1]))
except JstarError as error:
    sys.exit(f"jstar: {error}")

RUNS = [f"{model}-s{seed}" for model, seed in STUDY.runs()]
MODELS = [entry.name for entry in STUDY.ladder]

# Captions read their numbers from the result files when the report is made; what a fit could not
# give (null) is shown as a dash.
config["numbers"] = lambda output: read_json(
    next(f for f in map(str, output) if f.endswith(".json"))
)["numbers"]
config["show"] = lambda value, form: "–" if value is None else format(value, form)


wildcard_constraints:
    study=STUDY.study,
    dataset=STUDY.dataset.name,
    model="|".join(map(re.escape, MODELS)),
    seed=r"\d+",


# The study as the jobs read it. It is `ancient` wherever it is an input: what reruns a job is the
# job's own `content`, never a key that does not change its numbers.
rule study:
    output:
        "results/studies/{study}/study.json",
    log:
        "results/studies/{study}/logs/study.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    params:
        text=STUDY.model_dump_json(),
    shell:
        "jstar check --text {params.text:q} --out {output} 2> {log}"


STUDY_FILE = f"results/studies/{STUDY.study}/study.json"
