"""Room of runs of one size that differ in how they are trained, compared with each other."""
