# Load and check the study; a mistake ends here, in one sentence, before any job starts.
import os
import signal
import sys
from pathlib import Path

from jstar.application import application
from jstar.cluster.launch import allocation
from jstar.config import Study
from jstar.data import Card
from jstar.data.check import check_study, source_changed
from jstar.data.reading import reading_of
from jstar.errors import JstarError
from jstar.layout import Layout
from jstar.records import fingerprint, read_json, write_text

# Used as a module of another workflow this is the module's name; several may stand in one workflow,
# so each has a variable of its own that names its study.
MODULE = "" if __name__ == "snakemake.workflow" else __name__
VARIABLE = f"JSTAR_STUDY_{MODULE}" if MODULE else "JSTAR_STUDY"
ORIGIN = f"module {MODULE}" if MODULE else str(workflow.configfiles[-1])
SNAKEFILE = application() / "Snakefile"

# A job on a cluster is a Snakemake of its own. It reads the study that the run began with, not an
# edit of config/ since. SLURM warns all its processes with SIGUSR1 before the time limit; only the
# trainer answers, the others (and what they start) must not die of it.
try:
    if workflow.remote_exec:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        STUDY = Study.load(os.environ[VARIABLE])
    else:
        STUDY = Study.parse(dict(config), ORIGIN)
        check_study(STUDY, ORIGIN)
        # Once a run, not in each of its jobs: a folder of a million files takes seconds.
        if workflow.is_main_process and (changed := source_changed(Layout(STUDY).data)):
            print(f"jstar: {changed}", file=sys.stderr)
except JstarError as error:
    sys.exit(f"jstar: {error}")

# A job of a cluster's executor that runs out of time goes back to the queue; a workflow that runs
# whole inside one SLURM job must not.
REQUEUE = "--requeue" if workflow.remote_exec else ""

LAYOUT = Layout(STUDY)
RUN = LAYOUT.run("{model}", "{seed}")
LOSSES = [LAYOUT.losses(*run) for run in STUDY.runs()]
QUALITY = [LAYOUT.quality(*run) for run in STUDY.runs()]
MODELS = [entry.name for entry in STUDY.ladder]

# J* comes before every run, so that `jstar status` can show gaps while they train; on half of the
# cores of this machine, so that the runs need not wait for it. On a cluster there are no such
# cores (`workflow.cores` refuses), and a job's own Snakemake has the threads that the job was given.
BEFORE_TRAINING = len(MODELS) + 1
CORES = workflow.resource_settings.cores
OPTIMAL_THREADS = (
    STUDY.resources.optimal_threads
    if CORES is None or workflow.remote_exec
    else min(STUDY.resources.optimal_threads, max(1, CORES // 2))
)

# Captions read their numbers from the result files when the report is made; what a fit could not
# give (null) is shown as a dash.
config["numbers"] = lambda output, name: read_json(
    next(f for f in map(str, output) if Path(f).name == f"{name}.json")
)["numbers"]
config["reading"] = lambda output: reading_of(Card.load(output.card)).lines(
    STUDY.train.sigma_data
)
config["verified"] = lambda: (
    read_json(LAYOUT.verified)["summary"]
    if LAYOUT.verified.is_file()
    else "not looked at yet"
)
config["show"] = lambda value, form: "–" if value is None else format(value, form)


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    seed=r"\d+",


# The study as the jobs read it: a file named by its content, written when a run starts, so that an
# edit of config/ never reaches jobs of a run in progress. It is no input of any rule: what reruns a
# job is its own `content`, never a key that does not change its numbers. (An `ancient` input from a
# rule would hide changed params: Snakemake does not look at jobs below one that is to run.)
STUDY_ID = fingerprint(STUDY.model_dump_json())
STUDY_FILE = str(LAYOUT.fits / "config" / f"{STUDY_ID}.json")
os.environ[VARIABLE] = STUDY_FILE


envvars:
    VARIABLE,


onstart:
    write_text(STUDY_FILE, STUDY.model_dump_json(indent=2) + "\n")


# Snakemake hears `onstart` of the main workflow alone.
if MODULE and not workflow.remote_exec:
    write_text(STUDY_FILE, STUDY.model_dump_json(indent=2) + "\n")
