"""Room of the sample stage: noise-scale schedules, samplers, and the images of a run's snapshots.

Works with any denoiser D(x, sigma, labels) -> x0. Names are here, so that the study's keys can be
checked without torch; `steps` needs none either, theory uses it too.
"""

SAMPLERS = ("euler", "heun", "edm", "ddim", "ancestral", "sde")
SCHEDULES = ("polynomial", "exponential", "vp", "cosine", "flow")
