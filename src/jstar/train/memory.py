"""Keeping freed memory, on a CPU: asking the kernel for it again costs time in every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc not to return freed blocks to the kernel; False where there is no glibc.

    A step frees all its activations, and glibc gives them back: the next step pays one page fault
    for every 4 KiB again: 1,800 a step at depth 6 on the digits, and a tenth of its time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        done = libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        return bool(done and libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
    except (OSError, AttributeError):
        return False
