"""Control variates of the pair form: what else is known of each draw, with mean 0 exactly.

They come from the draw's softmax sums, and from projections of its source and noise on the data's
main directions (METHOD section 1, item 3). All in stored units, summed over the D dimensions.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from jstar.optimal.exact.data_moments import DataMoments
from jstar.optimal.exact.problem import ExactProblem, Floats, chunks_of


@dataclass(frozen=True)
class DrawProjections:
    """What the control variates need of each draw: projections of source and noise.

    y = x_i - mean of the source's group, and m = that mean - anchor.
    """

    group_M: NDArray[np.int64]
    norm_M: Floats  # |y|^2
    cross_M: Floats  # <y, eps>
    noise_M: Floats  # |eps|^2
    shift_M: Floats  # <y, m>
    noise_shift_M: Floats  # <eps, m>
    along_MP: Floats  # projections of y
    noise_along_MP: Floats


def project_draws(problem: ExactProblem) -> DrawProjections:
    """Projections of all draws, in the order of the problem."""
    moments, parts = problem.moments, []
    shift_GD = torch.from_numpy(moments.shift_GD).float()
    whole = replace(problem, labels_N=None, device=torch.device("cpu"))
    (group,) = whole.groups()
    for part in chunks_of(len(group.rows_M)):
        draws, source_M = whole.queries(group, part), group.source_M[part]
        group_M = np.zeros_like(source_M) if moments.group_N is None else moments.group_N[source_M]
        y_MD, eps_MD = draws.z_MD.sub_(moments.anchor_D), draws.noise_MD
        shift_MD = shift_GD.expand(len(y_MD), -1) if len(shift_GD) == 1 else shift_GD[group_M]
        norm_shift_M, noise_shift_M = _dots(shift_MD, shift_MD), _dots(eps_MD, shift_MD)
        shift_M = _dots(y_MD, shift_MD) - norm_shift_M
        parts.append((
            group_M,
            _dots(y_MD, y_MD) - 2 * shift_M - norm_shift_M,
            _dots(y_MD, eps_MD) - noise_shift_M,
            _dots(eps_MD, eps_MD),
            shift_M,
            noise_shift_M,
            ((y_MD - shift_MD) @ moments.direction_DP).double().numpy(),
            (eps_MD @ moments.direction_DP).double().numpy(),
        ))  # fmt: skip
    return DrawProjections(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _dots(a_MD: torch.Tensor, b_MD: torch.Tensor) -> Floats:
    product_M: Floats = torch.linalg.vecdot(a_MD, b_MD).double().numpy()
    return product_M


def controls_at(
    tau: float, sums_AMF: Floats, draws: DrawProjections, moments: DataMoments
) -> Floats:
    """Control variates of each draw at one noise scale, means removed, [M, V].

    Averages over the antithetic pair, as the pair form is.
    """
    linear = LinearDenoiser.at(tau, moments, draws.group_M)
    total_M = moments.total_G[draws.group_M]
    shift_square_M = total_M - linear.variance_M
    controls = []
    for sign, sums_MF in zip((1.0, -1.0), sums_AMF, strict=False):
        q_M, e_M, h_M = (sums_MF[:, k] / sums_MF[:, 0] for k in (1, 2, 3))
        anchored_M = draws.norm_M + 2 * draws.shift_M + shift_square_M  # |x_i - anchor|^2
        # <x_i - D*, x_i - anchor + tau eps>: orthogonality
        orthogonal_M = 0.5 * anchored_M - h_M + q_M - sign * tau * e_M
        controls.append(
            np.stack(
                [
                    draws.norm_M - linear.variance_M,
                    2 * h_M - total_M,
                    orthogonal_M,
                    *linear.controls(sign * tau, draws),
                    sign * tau * draws.cross_M,
                    tau**2 * (draws.noise_M - linear.dim),
                ],
                axis=1,
            )
        )
    control_MV: Floats = np.mean(controls, axis=0)
    return control_MV


@dataclass(frozen=True)
class LinearDenoiser:
    """The linear denoiser K of each draw's group: kappa along the directions, one for the rest.

    Any K has known means; this one is nearly the best denoiser of a Gaussian, so the controls
    explain nearly all of a large noise scale.
    """

    dim: int
    variance_M: Floats
    kappa_MP: Floats
    kappa_M: Floats
    m_MP: Floats  # projections of m = group mean - anchor
    inner_M: Floats  # mean of <y, K x>
    square_M: Floats  # mean of |K x|^2

    @classmethod
    def at(cls, tau: float, moments: DataMoments, group_M: NDArray[np.int64]) -> "LinearDenoiser":
        """K at a noise scale in stored units."""
        (dim, known), power, rest = (
            moments.direction_DP.shape, moments.power_GP, moments.rest_G
        )  # fmt: skip
        kappa_GP, kappa_G = power / (power + tau**2), rest / (rest + tau**2)
        inner_G = (kappa_GP * power).sum(1) + kappa_G * rest * (dim - known)
        square_G = (kappa_GP**2 * (power + tau**2)).sum(1)
        square_G += kappa_G**2 * (rest + tau**2) * (dim - known)
        m_GP = moments.shift_GD @ moments.direction_DP.double().numpy()
        by_group = (moments.variance_G, kappa_GP, kappa_G, m_GP, inner_G, square_G)
        return cls(dim, *(value[group_M] for value in by_group))

    def controls(self, tau: float, terms: DrawProjections) -> tuple[Floats, Floats, Floats, Floats]:
        """<y, K x>, |K x|^2, <y, m>, <m, K x> of x = y + tau eps, known means removed."""
        a_MP, b_MP = terms.along_MP, tau * terms.noise_along_MP
        x_MP = a_MP + b_MP
        y2_M = terms.norm_M - (a_MP**2).sum(1)  # in the rest
        ye_M = tau * terms.cross_M - (a_MP * b_MP).sum(1)
        ee_M = tau**2 * terms.noise_M - (b_MP**2).sum(1)
        inner_M = (self.kappa_MP * a_MP * x_MP).sum(1) + self.kappa_M * (y2_M + ye_M)
        square_M = (self.kappa_MP**2 * x_MP**2).sum(1)
        square_M += self.kappa_M**2 * (y2_M + 2 * ye_M + ee_M)
        mx_M = terms.shift_M + tau * terms.noise_shift_M - (self.m_MP * x_MP).sum(1)
        along_m_M = (self.kappa_MP * self.m_MP * x_MP).sum(1) + self.kappa_M * mx_M
        return inner_M - self.inner_M, square_M - self.square_M, terms.shift_M, along_m_M
