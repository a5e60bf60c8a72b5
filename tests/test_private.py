"""What another user planted is never followed, emptied, loaded or waited for."""

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jstar import native
from jstar.cluster.gpus import claim_gpus, lock_folder
from jstar.errors import JstarError

OTHER = 65534  # nobody
NAMELESS = 54321  # has no passwd entry
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")


@pytest.fixture
def machine(monkeypatch):
    """A temporary folder of all users, tmp, and a cache folder of this one, cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        (folder / "cache").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for key in ("JSTAR_LOCKS", "SLURM_JOB_ID", "SLURMD_NODENAME"):
            monkeypatch.delenv(key, raising=False)
        yield folder


def plant(path, kind):
    """Put at `path` what could be another user's folder."""
    if kind == "link":
        path.with_name("target").mkdir(mode=0o700)
        path.symlink_to(path.with_name("target"))
        return
    path.mkdir()
    path.chmod(0o777 if kind == "open to all" else 0o770 if kind == "open to a group" else 0o700)
    if kind == "another user's":
        os.chown(path, OTHER, OTHER)


PLANTED = ["link", "open to all", "open to a group", pytest.param("another user's", marks=root)]


def test_folders_and_files_are_made_closed(machine):
    with claim_gpus(1, ["0"]):
        assert lock_folder() == machine / f"tmp/jstar-gpus-{os.getuid()}"
        assert stat.S_IMODE(lock_folder().stat().st_mode) == 0o700
        assert stat.S_IMODE((lock_folder() / "gpu-0.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", PLANTED)
def test_jobs_share_locks_elsewhere_if_the_folder_is_planted(machine, kind):
    taken = machine / f"tmp/jstar-gpus-{os.getuid()}"
    plant(taken, kind)
    with claim_gpus(1, ["0", "1"]) as first, claim_gpus(1, ["0", "1"]) as second:
        assert (first, second) == (["0"], ["1"])
    assert lock_folder().parent == machine / "cache/jstar"
    assert not list(taken.iterdir())


@pytest.mark.parametrize("kind", PLANTED)
def test_the_last_resort_is_a_fresh_folder_and_one_line(machine, kind, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "nowhere/at/all"))
    taken = machine / f"tmp/jstar-gpus-{os.getuid()}"
    plant(taken, kind)
    folder = lock_folder()
    assert folder == lock_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert f"{taken} " in text
    assert f"{folder} " in text


@pytest.mark.parametrize("kind", PLANTED)
def test_a_stated_folder_of_locks_is_refused_in_one_sentence(machine, kind, monkeypatch):
    monkeypatch.setenv("JSTAR_LOCKS", str(machine / "locks"))
    plant(machine / "locks", kind)
    with pytest.raises(JstarError, match=r"^JSTAR_LOCKS: .*/locks .*; allowed is"):
        lock_folder()


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_stated_folder_of_locks_is_used(machine, mode, monkeypatch):
    monkeypatch.setenv("JSTAR_LOCKS", str(machine / "locks"))
    (machine / "locks").mkdir()
    (machine / "locks").chmod(mode)
    with claim_gpus(1, ["0", "1"]), claim_gpus(1, ["0", "1"]) as second:
        assert second == ["1"]
    assert (machine / "locks/gpu-1.lock").exists()


@root
def test_another_users_sticky_folder_or_lock_is_refused(machine, monkeypatch):
    monkeypatch.setenv("JSTAR_LOCKS", str(machine / "tmp"))
    (machine / "tmp/gpu-0.lock").touch()
    os.chown(machine / "tmp/gpu-0.lock", OTHER, OTHER)
    with (
        pytest.raises(JstarError, match=rf"gpu-0.lock: belongs to uid {OTHER}"),
        claim_gpus(1, ["0"]),
    ):
        pass
    os.chown(machine / "tmp", OTHER, OTHER)
    with pytest.raises(JstarError, match="JSTAR_LOCKS"):
        lock_folder()


@pytest.mark.parametrize("name", ["link", "pipe", "open"])
def test_a_planted_lock_file_is_neither_emptied_nor_waited_for(machine, name):
    precious = machine / "precious"
    precious.write_text("years of work")
    lock = lock_folder() / "gpu-0.lock"
    if name == "link":
        lock.symlink_to(precious)
    elif name == "pipe":
        os.mkfifo(lock)
    else:
        lock.write_text("years of work")
        lock.chmod(0o666)
    with pytest.raises(JstarError, match=r"gpu-0\.lock: .*allowed is"), claim_gpus(1, ["0"]):
        pass
    assert precious.read_text() == "years of work"
    assert name == "pipe" or lock.read_text() == "years of work"


@pytest.fixture
def kernel(machine):
    """A kernel of one function: `kernel()` loads it and says what the function returns."""
    source = machine / "kernel.c"
    source.write_text("int answer(void) { return 42; }\n")

    def run():
        library = native.load(source, ())
        return None if library is None else library.answer()

    return run


def library_of(machine):
    """The one kernel in the cache."""
    (file,) = (machine / "cache/jstar/kernels").glob("*.so")
    return file


def put(file, content):
    """A new file in its place: the old one may be loaded."""
    file.unlink()
    file.write_bytes(content)


@compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is of x86")
def test_what_holds_torch_to_avx2_holds_kernels_to_it(machine, monkeypatch):
    source = machine / "kernel.c"
    source.write_text(
        "int answer(void) {\n"
        "#if defined(__AVX2__) && !defined(__AVX512F__)\n    return 2;\n"
        "#else\n    return 0;\n#endif\n}\n"
    )
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert native.load(source, ()).answer() == 2
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    native.load(source, ())
    assert len([*(machine / "cache/jstar/kernels").glob("*.so")]) == 2  # neither is taken for both


@compiler
def test_a_kernel_is_compiled_once_and_kept_closed(machine, kernel, capsys, monkeypatch):
    assert kernel() == 42
    file = library_of(machine)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setattr(native, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert kernel() == 42
    assert capsys.readouterr().err == ""


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "whole, but no library": lambda content: b"text" + hashlib.sha256(b"text").digest(),
    "one bit": lambda content: bytes([*content[:-5000], content[-5000] ^ 1, *content[-4999:]]),
}


@compiler
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_kernel_is_replaced_and_said(machine, kernel, damage, capsys):
    assert kernel() == 42
    file = library_of(machine)
    whole = file.read_bytes()
    put(file, DAMAGE[damage](whole))
    assert kernel() == 42
    said = capsys.readouterr().err
    assert f"{file.name} is compiled anew" in said
    assert said.count("\n") == 1
    assert library_of(machine).read_bytes() == whole
    assert kernel() == 42
    assert capsys.readouterr().err == ""


@compiler
@pytest.mark.parametrize("how", [pytest.param("another user's", marks=root), "open", "link"])
def test_a_planted_kernel_is_not_loaded(machine, kernel, how, capsys):
    assert kernel() == 42
    file = library_of(machine)
    evil = machine / "evil.c"
    evil.write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void at_load(void)"
        f' {{ fclose(fopen("{machine}/harm", "w")); }}\nint answer(void) {{ return 13; }}\n'
    )
    built = machine / "evil.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, evil], check=True)
    content = built.read_bytes()
    put(file, content + hashlib.sha256(content).digest())  # only the owner and mode tell
    if how == "link":
        file.rename(machine / "evil.so")
        file.symlink_to(machine / "evil.so")
    elif how == "open":
        file.chmod(0o666)
    else:
        os.chown(file, OTHER, OTHER)
    assert kernel() == 42
    assert not (machine / "harm").exists()
    assert f"{file}: " in capsys.readouterr().err
    assert not library_of(machine).is_symlink()
    assert kernel() == 42


NOBODY_AT_HOME = """
import os, sys
from pathlib import Path
from jstar import native
from jstar.data.download import cache_folder
from jstar.cluster.gpus import claim_gpus, lock_folder
native.HEADERS = Path(sys.argv[1])
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
with claim_gpus(1, ["0"]) as devices:
    print(devices, lock_folder().parent)
print(cache_folder())
library = native.load(Path(sys.argv[1]) / "kernel.c", ())
print(library and library.answer())
"""


@root
@compiler
@pytest.mark.parametrize("home", [{}, {"HOME": "/"}, {"HOME": "/closed"}])
@pytest.mark.usefixtures("kernel")
def test_work_goes_on_without_a_home(machine, home):
    (machine / "closed").mkdir(mode=0o700)
    (machine / "~").mkdir()  # as other programs make it
    (machine / "~").chmod(0o777)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
           "TMPDIR": f"{machine}/tmp"}  # fmt: skip
    env |= {key: value.replace("/closed", f"{machine}/closed") for key, value in home.items()}
    command = [sys.executable, "-c", NOBODY_AT_HOME, str(machine), str(NAMELESS)]
    done = subprocess.run(command, env=env, cwd=machine, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"['0'] {machine}/tmp", f"{machine}/tmp/jstar-{NAMELESS}", "42"
    ]  # fmt: skip
