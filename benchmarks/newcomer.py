"""What does somebody see who clones the repository and does what the README says?

    python benchmarks/newcomer.py OUT.csv [COMMAND]        default: make study

Clones the last commit, runs the command there in a terminal of 100 columns with this machine's pip,
and writes down every 30 seconds the line that stands on the screen, and at the end the last lines.
`load` is the machine's load average: above the number of cores other jobs take part of the time.
"""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pandas as pd

from jstar.hardware import cpu_name
from jstar.records import provenance, write_table

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30
LAST_LINES = 30
# What pip says of this machine's own package indices belongs to no newcomer's path.
OURS = re.compile(r"WARNING: Location .* is ignored")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OWN = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def screen(text: str) -> list[str]:
    """The lines that a terminal shows; one that was rewritten as it was last."""
    shown = (line.rstrip("\r").split("\r")[-1] for line in CONTROL.sub("", text).split("\n"))
    return [line.rstrip() for line in shown if line.strip() and not OURS.match(line)]


def watch(command: str, folder: Path) -> tuple[list[tuple[float, float, str]], int]:
    """(seconds, load, line on the screen) while the command runs, and its exit status."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    own = f"{Path(sys.executable).parent}{os.pathsep}"
    env = {key: value for key, value in os.environ.items() if key not in OWN}
    env |= {"TERM": "xterm", "PATH": os.environ["PATH"].replace(own, "")}
    job = subprocess.Popen(["sh", "-c", command], cwd=folder, env=env, start_new_session=True,
                           stdin=theirs, stdout=theirs, stderr=theirs)  # fmt: skip
    os.close(theirs)
    start, seen, text, rows = time.monotonic(), 0, "", []
    ended = False
    while not ended:
        due = SECONDS * (seen + 1) - (time.monotonic() - start)
        if select.select([ours], [], [], max(due, 0))[0]:
            try:
                text += os.read(ours, 65536).decode(errors="replace")
            except OSError:  # the terminal's other end is closed
                ended = True
        elif due <= 0:
            seen += 1
            lines = screen(text)
            rows.append((SECONDS * seen, os.getloadavg()[0], lines[-1] if lines else ""))
            print(*rows[-1], flush=True)
    code = job.wait()
    end = round(time.monotonic() - start)
    rows += [(end, os.getloadavg()[0], line) for line in screen(text)[-LAST_LINES:]]
    return rows, code


def main() -> None:
    out, command = Path(sys.argv[1]), " ".join(sys.argv[2:]) or "make study"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "jstar"
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        rows, code = watch(command, folder)
    frame = pd.DataFrame(rows, columns=["seconds", "load", "screen"])
    load = frame["load"].mean()
    facts = provenance(
        command=f"python benchmarks/newcomer.py OUT.csv {command}", exit_status=code,
        device=cpu_name(),
        note=f"{os.cpu_count()} cores, load average {load:.1f}: other jobs ran on the machine"
        if load > os.cpu_count() + 1 else f"{os.cpu_count()} cores",
    )  # fmt: skip
    write_table(out, frame, facts)


if __name__ == "__main__":
    main()
