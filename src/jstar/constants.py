"""Numbers and words that several rooms share, each with one meaning. Imports no other module."""

from pathlib import Path

RESULTS = Path("results")  # the folder of all results, where nobody says otherwise
COOLDOWN = 0.0  # what the column ema holds in rows of a cooldown's end: the weights themselves
TOTAL = "total"  # what the column sigma holds in rows of the total loss
CRITICAL_SHARE = 1e-3  # of the variance: above it J* counts as positive, below as next to nothing
CONFIDENCE = 0.95  # of intervals, where nobody says otherwise
NORMAL_95 = 1.959964  # normal quantile: half a 95 % interval in standard errors
CLEAR = 3.0  # standard errors that make a statement in words
