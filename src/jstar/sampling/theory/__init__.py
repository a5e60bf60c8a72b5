"""The error of a sampler from J* and gaps, and which steps to take: tables only, no torch."""
