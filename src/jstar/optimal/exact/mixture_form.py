"""J* of a mixture of Gaussians: each point is the centre of its own component N(mu_n, s_n^2).

That is the training distribution of latents sampled from a VAE's posterior. Given x, component n
has weight w_n ~ N(x; mu_n, s_n^2 + sigma^2) and posterior N(m_n, kappa_n sigma^2), dimension by
dimension with kappa_n = s_n^2 / (s_n^2 + sigma^2) and m_n = (1 - kappa_n) mu_n + kappa_n x.
Each draw contributes the trace of its posterior covariance,

    tr Cov[x0|x] = sum_n w_n (sum_d kappa_nd sigma^2 + |m_n|^2) - |D*|^2,

the conditional mean of |x0 - D*|^2. The component variances tie every product to its noise scale:
six products of N x D for each (float64), not two for all.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.noise import gaussian
from jstar.optimal.draws import gaussian_noise
from jstar.optimal.exact.problem import Advance, DrawForm, ExactProblem, Floats
from jstar.optimal.points import DataPoints

TILE = 512
LATENT_STREAM = 1 << 42  # draws of x0 inside its component, apart from the streams of the noise


class MixtureForm(DrawForm):
    """The variance of each draw's posterior."""

    name = "posterior variance"

    def values(self, problem: ExactProblem, advance: Advance | None) -> Floats:
        """tr Cov[x0|x] of each draw, averaged over the antithetic pair, [M, S]."""
        points, seed, where = problem.points, problem.seed, problem.device
        value_MS = np.empty((len(problem.source_M), len(problem.sigma_S)))
        for group in problem.groups():
            number_M, source_M = problem.number_M[group.rows_M], problem.source_M[group.rows_M]
            x0_MD = component_draws(points, source_M, number_M, seed)
            noise_MD = gaussian_noise(seed, number_M, points.dim).double()
            for s, sigma in enumerate(problem.sigma_S):
                tau = float(sigma) / points.scale
                noisy = (x0_MD + sign * tau * noise_MD for sign in (1, -1)[: problem.signs])
                both = [posterior_moments(group.points, x_MD, tau, where)[1] for x_MD in noisy]
                value_MS[group.rows_M, s] = np.mean(both, axis=0)
                if advance is not None:
                    advance(len(group.points) / len(problem.sigma_S))
        return value_MS


def component_draws(
    points: DataPoints, source_M: NDArray[np.int64], number_M: NDArray[np.int64], seed: int
) -> torch.Tensor:
    """x0 of the draws: a random point of the source's component, float64 [M, D]."""
    latent = gaussian(seed, number_M + LATENT_STREAM, points.dim)
    return points.take(source_M).double() + points.spread(source_M) * torch.from_numpy(latent)


def posterior_moments(
    points: DataPoints, x_MD: torch.Tensor, tau: float, device: torch.device
) -> tuple[torch.Tensor, Floats]:
    """Mean [M, D] and tr Cov [M] of x0 given x = x0 + tau * noise, centred stored units."""
    x_MD = x_MD.to(device)
    x2_MD = x_MD.square()
    peak_M = torch.full((len(x_MD),), -torch.inf, dtype=torch.float64, device=device)
    weight_M, square_M = torch.zeros_like(peak_M), torch.zeros_like(peak_M)
    fixed_MD, along_MD = torch.zeros_like(x_MD), torch.zeros_like(x_MD)
    for start, stop in points.tiles(TILE):
        mu_ND = points.tile(start, stop).double().to(device)
        s2_ND = points.spread(np.arange(start, stop)).double().square().to(device)
        wide_ND = s2_ND + tau**2
        kappa_ND = s2_ND / wide_ND
        rest_ND = (1 - kappa_ND) * mu_ND
        logit_MN = x_MD @ (mu_ND / wide_ND).t() - 0.5 * x2_MD @ wide_ND.reciprocal().t()
        logit_MN -= 0.5 * (mu_ND.square() / wide_ND + wide_ND.log()).sum(1)
        # sum_d kappa sigma^2 + |m_n|^2 as a quadratic form in x
        form_MN = 2 * x_MD @ (rest_ND * kappa_ND).t() + x2_MD @ kappa_ND.square().t()
        form_MN += (tau**2 * kappa_ND + rest_ND.square()).sum(1)
        new_M = torch.maximum(peak_M, logit_MN.amax(dim=1))
        kept_M, w_MN = (peak_M - new_M).exp(), (logit_MN - new_M[:, None]).exp()
        weight_M = weight_M * kept_M + w_MN.sum(1)
        square_M = square_M * kept_M + (w_MN * form_MN).sum(1)
        fixed_MD = fixed_MD * kept_M[:, None] + w_MN @ rest_ND
        along_MD = along_MD * kept_M[:, None] + w_MN @ kappa_ND
        peak_M = new_M
    mean_MD = (fixed_MD + x_MD * along_MD) / weight_M[:, None]
    variance_M = square_M / weight_M - mean_MD.square().sum(1)
    return mean_MD.cpu(), variance_M.clamp_min(0.0).cpu().numpy().astype(np.float64)
