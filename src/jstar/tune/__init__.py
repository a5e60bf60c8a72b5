"""Room of the tune stage: short trials that choose each size's learning rate before its runs.

Shape letters:
    T  trials    Q  the same trials with other luck    M  noisy draws    S  noise scales
"""

from jstar.tune.stage import tune_size, write_tuning

__all__ = ["tune_size", "write_tuning"]
