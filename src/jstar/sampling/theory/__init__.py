"""Room of the sampling theory: the error of a sampler from J*, gaps, and which steps to take.

Reads tables only, imports no torch.
"""
