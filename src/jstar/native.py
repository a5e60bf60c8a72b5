"""C kernels of the rooms: compiled once with the system's compiler, and done without where none is.

JSTAR_NATIVE=0 turns them off. A compiled file lies in the user's cache folder, under a name that
holds the source, the compiler and the processor: an upgrade or another machine compiles anew.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch

from jstar.errors import JstarError
from jstar.records import write_atomically

HEADERS = Path(__file__).parent
COMMON = ("-O3", "-march=native", "-shared", "-fPIC", "-std=c11")
COMPILE_SECONDS = 60


def load(source: Path, *alternatives: tuple[str, ...]) -> ctypes.CDLL | None:
    """The compiled `source`, with the first of the alternative flags that the compiler takes.

    None: no compiler, it failed, or JSTAR_NATIVE=0.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if os.environ.get("JSTAR_NATIVE") == "0" or compiler is None or not source.is_file():
        return None
    for flags in alternatives:
        path = _cache_folder() / f"{source.stem}-{_key(source, compiler, flags)}.so"
        try:
            if not path.is_file():
                command = [compiler, *COMMON, f"-I{HEADERS}", *flags, str(source), "-lm", "-o"]
                write_atomically(path, partial(_compile, command))
            return ctypes.CDLL(str(path))
        except (OSError, subprocess.SubprocessError, JstarError):
            continue
    return None


def address(x: torch.Tensor, row: int = 0) -> ctypes.c_void_p:
    """Address of x[row] of a contiguous CPU tensor."""
    if not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError("the kernel needs contiguous tensors on the CPU")
    return ctypes.c_void_p(x.data_ptr() + row * x.stride(0) * x.element_size())


def _compile(command: list[str], out: Path) -> None:
    subprocess.run([*command, str(out)], check=True, capture_output=True, timeout=COMPILE_SECONDS)


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if os.access(base if base.exists() else base.parent, os.W_OK):
        return base / "jstar"
    return Path(tempfile.gettempdir()) / f"jstar-{os.getuid()}"


def _key(source: Path, compiler: str, flags: tuple[str, ...]) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        cpu = platform.processor()
    code = [path.read_text() for path in (source, *sorted(HEADERS.glob("*.h")))]
    text = "\n".join([*code, compiler, *COMMON, *flags, platform.machine(), cpu])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
