"""The names a study file may choose from, all in one place. Imports no torch."""

from jstar.noise import PROCESSES as PROCESSES

KINDS = ("scaling", "variants")
SOURCES = (
    "digits", "npz", "cifar10", "mnist", "fashion-mnist", "imagenet32", "imagenet64", "imagenet",
    "tiny-imagenet", "images", "parquet", "webdataset", "edm2", "repa", "lightningdit", "fast-dit",
)  # fmt: skip
ESTIMATORS = ("exact", "exact_by_class", "snis", "dol", "cdol")
EXACT_ESTIMATORS = ESTIMATORS[:2]  # sums over all points: these have shards
FORMS = ("pair+controls", "pair", "moment")
# Name -> (depth, width). Width = 64 x depth, but for the two ends (arXiv 2506.13763: 120M, 1.5B).
SIZES = {
    "dit-120m": (11, 768),
    "dit-206m": (14, 896),
    "dit-367m": (17, 1088),
    "dit-596m": (20, 1280),
    "dit-905m": (23, 1472),
    "dit-1.5b": (28, 1728),
}
SAMPLERS = ("euler", "heun", "edm", "ddim", "ancestral", "sde")
SPACINGS = ("polynomial", "exponential", "vp", "cosine", "flow")  # of a sampler's noise scales
