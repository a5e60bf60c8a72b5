"""Where losses begin to be of a law: the joint law is fitted to what comes from there on.

At one size every law that is fitted here, whatever its floor, is a sum of a constant from 0 up and
powers of the images D, and the logarithm of such a sum is convex in ln D. Where a curve bends down
(a plateau that the network leaves as it learns its first structure), none of them holds. The rule
knows no verdict: raw, corrected and free laws are all convex.

It is fitted from the images on that the second latest of their onsets names. A law across
sizes wants the same phase of each, and of seven sizes with one seed some hide their bend in noise;
that two sizes bend late by chance is rare.

Letters: S snapshots of a curve, K noise scales, V windows of neighbouring snapshots.
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

    images_S: of the snapshots. bend_KV: second derivative of ln J by ln D. spread_KV: variance of a
    snapshot about the window's parabola. scale_V: standard error of a bend, of unit variance.
    """

    params: float
    sigmas: tuple[float | str, ...]
    images_S: Array
    bend_KV: Array
    spread_KV: Array
    scale_V: Array

    @classmethod
    def of(
        cls, params: float, sigmas: tuple[float | str, ...], images_S: Array, loss_KS: Array
    ) -> "Bends":
        """Parabolas of ln J in every window."""
        x_S, y_KS = np.log(images_S), np.log(loss_KS)
        bends, spreads, scales = [], [], []
        for at in range(len(x_S) - WINDOW + 1):
            x = x_S[at : at + WINDOW] - x_S[at : at + WINDOW].mean()
            basis, y_KW = np.stack([np.ones(WINDOW), x, x * x]), y_KS[:, at : at + WINDOW]
            inverse = np.linalg.pinv(basis)
            part_K3 = y_KW @ inverse
            rest = y_KW - part_K3 @ basis
            bends.append(2 * part_K3[:, 2])
            spreads.append((rest * rest).sum(axis=1) / (WINDOW - 3))
            scales.append(2 * float(np.linalg.norm(inverse[:, 2])))
        return cls(
            params, sigmas, images_S, np.array(bends).T, np.array(spreads).T, np.array(scales)
        )

    def in_se(self, common_K: Array) -> Array:
        """Each bend in standard errors, [K, V]; a curve that looks smoother than most is not."""
        noise_K = np.maximum(np.median(self.spread_KV, axis=1), common_K)
        return np.asarray(self.bend_KV / (self.scale_V * np.sqrt(noise_K)[:, None] + 1e-150))


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
    spreads = [pd.DataFrame(bends.spread_KV, index=list(bends.sigmas)) for bends in every]
    common = pd.concat(spreads, axis=1).median(axis=1) if every else pd.Series(dtype=float)
    for bends in every:
        in_se_KV = bends.in_se(common[list(bends.sigmas)].to_numpy())
        down_V = (in_se_KV < -CLEARLY).any(axis=0)
        if down_V.any():
            last = int(np.flatnonzero(down_V)[-1])
            onset = float(bends.images_S[last + WINDOW // 2])
            if onset > found[bends.params][0]:
                k = int(np.argmin(in_se_KV[:, last]))
                found[bends.params] = onset, bends.sigmas[k], float(in_se_KV[k, last])
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
            images_S = loss.columns.to_numpy(dtype=float)
            yield Bends.of(float(str(params)), tuple(loss.index), images_S, loss.to_numpy(float))
