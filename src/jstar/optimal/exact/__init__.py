"""The exact estimator of J*: sums over all data points, for every draw and noise scale at once."""
