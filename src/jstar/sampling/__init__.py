"""Room of the sampling: noise scales, samplers, the quality of what they draw, and their theory.

Works with any denoiser D(x, sigma, labels) -> x0. `steps` and `theory` need no torch.

Shape letters:
    B  images of a batch          N  images of a set, most often the generated ones
    M  images of the reference    T  snapshots of a run
    C  channels                   H, W  rows, columns
    F  features of an image       G  groups of the jackknife
    K  noise scales of a sampler  S  noise scales of a table
    I  pieces of a quadrature     J  its nodes in a piece
    P  points of a correlation    R  training runs              Q  bootstrap draws
"""
