"""The compiled solver of joint laws: see joint_solve.c and `jstar.native`."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from jstar.native import load
from jstar.scaling.joint_many import HIGHEST, LOWEST, JointDesign, Whitening
from jstar.scaling.laws import Array

SOURCE = Path(__file__).with_name("joint_solve.c")


class _Design(ctypes.Structure):
    """`design` of joint_solve.c."""

    _fields_ = [("points", ctypes.c_int64), ("clusters", ctypes.c_int64)] + [
        (name, ctypes.c_void_p) for name in ("start_R", "ln_n_R", "ln_d_P")
    ]


class _Search(ctypes.Structure):
    """`search` of joint_solve.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("low", "high")),
        *((name, ctypes.c_double) for name in ("tolerance", "rounding", "largest_step")),
        *((name, ctypes.c_int64) for name in ("steps", "free")),
    ]


@cache
def kernel() -> ctypes.CDLL | None:
    """The compiled solver; None where it cannot be compiled."""
    return load(SOURCE, ())


def solve_compiled(
    library: ctypes.CDLL, design: JointDesign, loss_QP: Array, start_IQK: Array, white: Whitening,
    **search: float,
) -> tuple[Array, Array]:  # fmt: skip
    """`joint_solve.solve` by the kernel; search: the numbers of `_Search`."""
    studies, points = loss_QP.shape
    start_R = np.r_[design.start_R, points].astype(np.int64)
    # Named, since they have to outlive the call.
    given = [
        np.ascontiguousarray(x, dtype=np.float64)
        for x in (
            design.ln_n_P[design.start_R], design.ln_d_P, LOWEST, HIGHEST, loss_QP, start_IQK,
            np.stack([white.own_QP, white.before_QP, white.shape_QP]), white.share_QR,
        )
    ]  # fmt: skip
    theta_IQK, rss_IQ = np.empty(start_IQK.shape), np.empty(start_IQK.shape[:2])
    room = np.empty(3 * points + 3 * len(design.start_R))
    ln_n_R, ln_d_P, low, high, *tables = map(_address, given)
    library.jstar_joint_solve(
        ctypes.byref(_Design(points, len(design.start_R), _address(start_R), ln_n_R, ln_d_P)),
        ctypes.byref(_Search(low, high, **search)),
        ctypes.c_int64(studies), ctypes.c_int64(len(start_IQK)), *tables,
        *map(_address, (room, theta_IQK, rss_IQ)),
    )  # fmt: skip
    return theta_IQK, rss_IQ


def _address(x: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.ctypes.data)
