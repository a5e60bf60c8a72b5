"""Two commands say the same of one network: worse than the mean image, or not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jstar.diagnose import Diagnosis
from jstar.diagnose.measure import COLUMNS
from jstar.diagnose.solver import Identification
from jstar.diagnose.words import in_words
from jstar.noise import process
from jstar.variants.losses import summary_rows

SIGMA, VARIANCE, ERROR = np.array([1.0, 10.0, 40.0]), 0.5, 0.01


def verdicts(errors):
    """What both commands say of a loss `errors` standard errors over the mean image's, at 40."""
    optimal = np.array([0.2, 0.45, 0.49])
    gap = VARIANCE - optimal + ERROR * np.array([-9.0, -9.0, errors])
    same = {"gap_se": ERROR, "loss_se": ERROR, "excess_se": ERROR, "weight": 1.0, "slope": 1.0}
    frame = pd.DataFrame({"sigma": SIGMA, "loss": optimal + gap, "gap": gap, "optimal": optimal,
                          "mean_image": VARIANCE, "slope_se": 0.1, "offset": 0.0, "model": "a",
                          "holdout": np.nan, "holdout_se": np.nan, **same})  # fmt: skip
    whole = frame.reindex(columns=list(COLUMNS))
    right = Identification("right", "as claimed")
    one = in_words(Diagnosis("a", process("edm"), "digits", 9, 9, whole), right)
    study = SimpleNamespace(ladder=[SimpleNamespace(name="a")])
    row = summary_rows(study, frame, SimpleNamespace(variance=VARIANCE))[0]
    return "worse than the dataset's mean image at sigma = 40" in one, row[4] == "40"


@pytest.mark.parametrize(("errors", "worse"), [(2.5, False), (2.9, False), (3.1, True), (4, True)])
def test_both_commands_say_whether_the_mean_image_is_better(errors, worse):
    assert verdicts(errors) == (worse, worse)
