"""Where losses begin to be of a law: the joint law is fitted to what comes from there on.

At one size every law that is fitted here, whatever its floor, is a sum of a constant from 0 up and
powers of the images D, and the logarithm of such a sum is convex in ln D. Where a curve bends down
(a plateau that the network leaves as it learns its first structure), none of them holds. The rule
knows no verdict: raw, corrected and free laws are all convex.

It is fitted from the images on that the second latest of their onsets names. A law across
sizes wants the same phase of each, and of seven sizes with one seed some hide their bend in noise;
that two sizes bend late by chance is rare.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jstar.scaling.laws import Array

WINDOW = 7  # snapshots, over which a curve's bend is measured
LEAST = WINDOW + 2  # snapshots of a curve: fewer tell no onset
CLEARLY = 5.0  # standard errors by which a window must bend down: noise does so in 1 of 100 curves
AGREE = 2  # sizes that must bend down as late
COLUMNS = ("params", "onset", "sigma", "bend_in_se", "fitted_from")


@dataclass(frozen=True)
class Bends:
    """How each window of one size's curves bends, in standard errors.

    images_T: of the snapshots. bend_SV: second derivative of ln J by ln D. spread_SV: variance of a
    snapshot about the window's parabola. scale_V: standard error of a bend, of unit variance.
    """

    params: float
    sigmas: tuple[float | str, ...]
    images_T: Array
    bend_SV: Array
    spread_SV: Array
    scale_V: Array

    @classmethod
    def of(
        cls, params: float, sigmas: tuple[float | str, ...], images_T: Array, loss_ST: Array
    ) -> "Bends":
        """Parabolas of ln J in every window."""
        x_T, y_ST = np.log(images_T), np.log(loss_ST)
        bends, spreads, scales = [], [], []
        for at in range(len(x_T) - WINDOW + 1):
            x = x_T[at : at + WINDOW] - x_T[at : at + WINDOW].mean()
            basis, y_SW = np.stack([np.ones(WINDOW), x, x * x]), y_ST[:, at : at + WINDOW]
            inverse = np.linalg.pinv(basis)
            part_S3 = y_SW @ inverse
            rest = y_SW - part_S3 @ basis
            bends.append(2 * part_S3[:, 2])
            spreads.append((rest * rest).sum(axis=1) / (WINDOW - 3))
            scales.append(2 * float(np.linalg.norm(inverse[:, 2])))
        return cls(
            params, sigmas, images_T, np.array(bends).T, np.array(spreads).T, np.array(scales)
        )

    def in_se(self, common_S: Array) -> Array:
        """Each bend in standard errors, [S, V]; a curve that looks smoother than most is not."""
        noise_S = np.maximum(np.median(self.spread_SV, axis=1), common_S)
        return np.asarray(self.bend_SV / (self.scale_V * np.sqrt(noise_S)[:, None] + 1e-150))


def onset_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a size: `onset`, the images at which its curves last bend down, 0 where none does.

    rows: of all noise scales, with `loss_fit`. The onset is the middle of the last window in which
    ln J bends down clearly at any noise scale; sigma is the one that bends most there, and
    bend_in_se says by how much. fitted_from: the study's, the same in every row.
    """
    found: dict[float, tuple[float, float | str | None, float]] = {
        float(str(n)): (0.0, None, float("nan")) for n in sorted(rows["params"].unique())
    }
    every = list(_bends(rows)) if "images" in rows else []
    spreads = [pd.DataFrame(bends.spread_SV, index=list(bends.sigmas)) for bends in every]
    common = pd.concat(spreads, axis=1).median(axis=1) if every else pd.Series(dtype=float)
    for bends in every:
        in_se_SV = bends.in_se(common[list(bends.sigmas)].to_numpy())
        down_V = (in_se_SV < -CLEARLY).any(axis=0)
        if down_V.any():
            last = int(np.flatnonzero(down_V)[-1])
            onset = float(bends.images_T[last + WINDOW // 2])
            if onset > found[bends.params][0]:
                k = int(np.argmin(in_se_SV[:, last]))
                found[bends.params] = onset, bends.sigmas[k], float(in_se_SV[k, last])
    late = sorted((one[0] for one in found.values()), reverse=True)
    fitted_from = late[AGREE - 1] if len(late) >= AGREE else 0.0
    table = [(n, *one, fitted_from) for n, one in found.items()]
    return pd.DataFrame(table, columns=list(COLUMNS))


def before(rows: pd.DataFrame, onsets: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows come before the images from which the joint law is fitted."""
    if "images" not in rows:
        return pd.Series(False, index=rows.index)
    return rows["images"] < float(onsets["fitted_from"].iloc[0])


def _bends(rows: pd.DataFrame) -> Iterator[Bends]:
    """Of every size: the mean over its seeds, or over those of them that share their snapshots."""
    seen = rows.drop_duplicates(["run", "images"]).groupby("run")["images"].apply(frozenset)
    for (params, _), part in rows.groupby(["params", rows["run"].map(seen)]):
        loss = part.pivot_table(index="sigma", columns="images", values="loss_fit")
        loss = loss[(loss > 0).all(axis=1)]
        if loss.shape[0] and loss.shape[1] >= LEAST:
            images_T = loss.columns.to_numpy(dtype=float)
            yield Bends.of(float(str(params)), tuple(loss.index), images_T, loss.to_numpy(float))
