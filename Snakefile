# The whole study: prepare -> optimal -> (tune) -> train -> evaluate -> fit -> figures -> report.
# A study is one file in config/: snakemake --cores all --configfile config/<study>.yaml
from snakemake.utils import min_version

from jstar.application import application

min_version("9.0")


# Two config files would be merged key by key, so the default is read only where none is given; a
# module's config is what the other workflow says.
if not workflow.configfiles:

    configfile: application() / "config/digits.yaml"


include: "workflow/rules/study.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/optimal.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"


if STUDY.kind == "scaling":

    include: "workflow/rules/fit.smk"


include: "workflow/rules/variants.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/sampling.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/study.rst"


rule all:
    default_target: True
    input:
        DRAWN,
        TUNING,
        SAMPLES,
        NOISE_LAWS,
        LAYOUT.report,
