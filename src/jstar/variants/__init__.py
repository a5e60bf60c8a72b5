"""Room of runs of one size that differ in how they are trained, compared with each other.

Shape letters:
    K  seeds    S  noise scales
"""
