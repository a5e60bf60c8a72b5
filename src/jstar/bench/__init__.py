"""How fast this machine is at what jstar does, beside a committed machine: `jstar bench`."""

from jstar.bench.measures import Measure, measure_all
from jstar.bench.table import bench_frame, bench_lines, machine

__all__ = ["Measure", "bench_frame", "bench_lines", "machine", "measure_all"]
