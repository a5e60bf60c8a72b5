"""C kernels of the rooms: compiled once with the system's compiler, and done without where none is.

JSTAR_NATIVE=0 turns them off. A compiled file lies in the user's cache folder, under a name that
holds the source, the compiler and the processor: an upgrade or another machine compiles anew. It
ends in the digest of what comes before, and is loaded only if nobody else can have written it.
ATEN_CPU_CAPABILITY=avx2, which holds torch's kernels to AVX2, holds these to it, too.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jstar.errors import JstarError
from jstar.private import open_private, private_folder, user_cache, write_private

if TYPE_CHECKING:  # fits load no torch
    import torch

HEADERS = Path(__file__).parent
COMMON = ("-O3", "-shared", "-fPIC", "-std=c11")
COMPILE_SECONDS = 60
DIGEST_BYTES = 32


def load(source: Path, *alternatives: tuple[str, ...]) -> ctypes.CDLL | None:
    """The compiled `source`, with the first of the alternative flags that the compiler takes.

    None: no compiler, it failed, or JSTAR_NATIVE=0.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if os.environ.get("JSTAR_NATIVE") == "0" or compiler is None or not source.is_file():
        return None
    for flags in alternatives:
        given = [_architecture(), *COMMON, f"-I{HEADERS}", *flags]
        command = [compiler, *given, str(source), "-lm", "-o"]
        try:
            path = _cache_folder() / f"{source.stem}-{_key(source, compiler, flags)}.so"
            return _cached(path) or _compiled(command, path)
        except (OSError, subprocess.SubprocessError, JstarError):
            continue
    return None


def files_of(source: Path) -> list[Path]:
    """A kernel's source and the headers that it may include."""
    return [source, *sorted({*HEADERS.glob("*.h"), *source.parent.glob("*.h")})]


def address(x: "torch.Tensor", row: int = 0) -> ctypes.c_void_p:
    """Address of x[row] of a contiguous CPU tensor."""
    if not x.is_contiguous() or x.device.type != "cpu":
        raise ValueError("the kernel needs contiguous tensors on the CPU")
    return ctypes.c_void_p(x.data_ptr() + row * x.stride(0) * x.element_size())


@cache
def cpu_features() -> str:
    """What this processor's instructions are, as the system states it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cached(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None if there is none, or if stderr is told what is wrong with it."""
    try:
        return _checked(path)
    except FileNotFoundError:
        return None
    except (OSError, JstarError) as error:
        print(f"jstar: {error}; {path.name} is compiled anew", file=sys.stderr)
        return None


def _compiled(command: list[str], path: Path) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        subprocess.run(
            [*command, str(out)], check=True, capture_output=True, timeout=COMPILE_SECONDS
        )
        content = out.read_bytes()
    write_private(path, content + hashlib.sha256(content).digest())
    return _checked(path)


def _checked(path: Path) -> ctypes.CDLL:
    """Load the very file that was found whole and this user's. Raises OSError or JstarError."""
    handle = open_private(path)
    try:
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read()
        if hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
            raise JstarError(f"{path}: is damaged")
        opened = Path(f"/proc/self/fd/{handle}")  # Linux; the name may be another file's by now
        # The descriptor stays open: the loader takes a second file of this name for the first.
        return ctypes.CDLL(str(opened if opened.exists() else path))
    except BaseException:
        os.close(handle)
        raise


def _architecture() -> str:
    held = os.environ.get("ATEN_CPU_CAPABILITY") == "avx2" and platform.machine() == "x86_64"
    return "-march=haswell" if held else "-march=native"


def _cache_folder() -> Path:
    cache = user_cache()
    own = [cache / "kernels"] if cache else []
    return private_folder(*own, Path(tempfile.gettempdir()) / f"jstar-{os.getuid()}")


def _key(source: Path, compiler: str, flags: tuple[str, ...]) -> str:
    code = [path.read_text() for path in files_of(source)]
    facts = [compiler, _architecture(), *COMMON, *flags, platform.machine(), cpu_features()]
    text = "\n".join([*code, *facts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
