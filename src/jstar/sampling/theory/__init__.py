"""Room of the sampling theory: the error of a sampler from J*, gaps and a step schedule.

Reads tables only, imports no torch.
"""
