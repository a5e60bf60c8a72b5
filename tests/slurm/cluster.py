"""A real SLURM on this one machine, for tests: several nodes, fake GPUs, no systemd.

    python tests/slurm/cluster.py start     daemons up, nodes idle (root on Debian: also installs)
    python tests/slurm/cluster.py env       the line to eval in a shell
    python tests/slurm/cluster.py selftest  one job with a GPU, and what it saw
    python tests/slurm/cluster.py stop      daemons down, folder removed

Every daemon is one node's slurmd, the controller, or munge; with accounting also slurmdbd over a
private MariaDB. All they write lies in one folder. Links in /etc/slurm lead to the configuration
while it runs, because Snakemake's executor drops SLURM_CONF. GPUs are links to /dev/null: SLURM
counts them and sets CUDA_VISIBLE_DEVICES. Settings: JSTAR_SLURM_{FOLDER,NODES,CPUS,MEM_MB,GPUS,
PORT,ACCOUNTING}.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

ETC = Path("/etc/slurm")
START_SECONDS = 60


class UnavailableError(Exception):
    """SLURM cannot be had on this machine; says why."""


@dataclass(frozen=True)
class Cluster:
    """What the cluster has; `cpus`, `mem_mb` and `gpus` are those of each node."""

    folder: Path = Path(tempfile.gettempdir()) / "jstar-slurm"
    nodes: int = 2
    cpus: int = 2
    mem_mb: int = 8000
    gpus: int = 2
    port: int = 17017  # of the controller; node k listens at port + k
    accounting: bool = False

    @classmethod
    def from_environment(cls) -> "Cluster":
        """Defaults, changed by JSTAR_SLURM_*."""
        stated = {f.name: os.environ.get(f"JSTAR_SLURM_{f.name.upper()}") for f in fields(cls)}
        return cls(
            **{
                name: Path(text) if name == "folder" else int(text)
                for name, text in stated.items()
                if text is not None
            }
        )

    @property
    def config(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.config)}

    # -- the four commands ---------------------------------------------------------------------

    def start(self) -> None:
        """Raises UnavailableError if SLURM is not here and cannot be installed."""
        self._install()
        if _alive(self.folder / "slurmctld.pid"):
            return
        for name in ("state", *(f"spool.n{k}" for k in self._numbers())):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self._write_config()
        self._link()
        try:
            self._start_munge()
            if self.accounting:
                self._start_accounting()
            self._run("slurmctld", "-f", self.config)
            for k in self._numbers():
                self._run("slurmd", "-N", f"n{k}", "-f", self.config)
            self._wait_for("all nodes are idle", self._all_idle)
        except BaseException:
            self.stop(keep=True)
            raise

    def stop(self, keep: bool = False) -> None:
        """Cancel all jobs, end the daemons by the ids in their files; `keep` the folder's logs."""
        if _alive(self.folder / "slurmctld.pid"):
            self._run("scancel", "--user", getpass.getuser())
            self._wait_for("all jobs are gone", lambda: self._run("squeue", "-h") == "")
        daemons = [f"slurmd.n{k}" for k in self._numbers()]
        for name in (*daemons, "slurmctld", "slurmdbd", "mariadb", "munged"):
            _end(self.folder / f"{name}.pid")
        for name in ("slurm.conf", "gres.conf"):
            link = ETC / name
            if link.is_symlink() and link.readlink() == self.folder / name:
                link.unlink()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def selftest(self) -> str:
        """Output of one small job with a GPU."""
        out = self.folder / "selftest.out"
        job = 'echo "job $SLURM_JOB_ID on $SLURMD_NODENAME, GPUs $CUDA_VISIBLE_DEVICES"'
        self._run("sbatch", "--wait", "-t1", "--gres=gpu:1", "-o", out, "--wrap", job)
        return out.read_text()

    # -- pieces --------------------------------------------------------------------------------

    def _numbers(self) -> range:
        return range(1, self.nodes + 1)

    def _run(self, *command: object, **environment: str) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            env={**self.environment, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _wait_for(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                logs = "".join(p.read_text()[-1500:] for p in self.folder.glob("slurm*.log"))
                raise RuntimeError(f"{what}: not after {START_SECONDS} s\n{logs}")
            time.sleep(0.2)

    def _all_idle(self) -> bool:
        try:
            idle = self._run("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D").split()
        except RuntimeError:
            return False
        return idle == [str(self.nodes)]

    def _install(self) -> None:
        wanted = {
            "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client",
            "munged": "munge",
        }  # fmt: skip
        if self.accounting:
            wanted |= {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
        missing = [package for tool, package in wanted.items() if not shutil.which(tool)]
        if not missing:
            if os.getuid() != 0:
                raise UnavailableError("SLURM's daemons run jobs only as root, and we are not")
            return
        if os.getuid() != 0 or not shutil.which("apt-get"):
            raise UnavailableError(f"{', '.join(missing)}: not installed; needs root and apt-get")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            self._run("apt-get", "update", "-qq", **quiet)
            self._run("apt-get", "install", "-y", "--no-install-recommends", *missing, **quiet)
        except RuntimeError as error:
            raise UnavailableError(f"{', '.join(missing)}: apt-get failed: {error}") from error

    def _write_config(self) -> None:
        here, user, host = self.folder, getpass.getuser(), socket.gethostname().split(".")[0]
        storage = ["AccountingStorageType=accounting_storage/none"]
        if self.accounting:
            storage = [
                "AccountingStorageType=accounting_storage/slurmdbd",
                "AccountingStorageHost=127.0.0.1",
                f"AccountingStoragePort={self.port + 100}",
                f"AccountingStoragePass={here}/munge.socket",
                "AccountingStorageTRES=gres/gpu",
            ]
        nodes = [
            f"NodeName=n{k} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + k} "
            f"CPUs={self.cpus} RealMemory={self.mem_mb} Gres=gpu:{self.gpus} State=UNKNOWN"
            for k in self._numbers()
        ]
        every = f"Nodes=n[1-{self.nodes}] MaxTime=60 DefMemPerCPU=500 State=UP"
        lines = [
            "ClusterName=jstartest",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            # A requeued job waits until its old credential expires: two minutes by default.
            f"AuthInfo=socket={here}/munge.socket,cred_expire=5",
            f"SlurmctldPort={self.port}",
            f"SlurmctldPidFile={here}/slurmctld.pid",
            f"SlurmdPidFile={here}/slurmd.%n.pid",
            f"SlurmctldLogFile={here}/slurmctld.log",
            f"SlurmdLogFile={here}/slurmd.%n.log",
            f"StateSaveLocation={here}/state",
            f"SlurmdSpoolDir={here}/spool.%n",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=task=2",
            "JobAcctGatherParams=OverMemoryKill",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU_Memory",
            "SlurmdParameters=config_overrides",  # believe these CPUs and memory
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,"
            "bf_interval=1",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "JobRequeue=1",
            "ReturnToService=2",
            "MinJobAge=600",
            "KillWait=10",
            "MailProg=/bin/true",
            "GresTypes=gpu",
            *storage,
            *nodes,
            f"PartitionName=cpu Default=YES PriorityTier=1 {every}",
            f"PartitionName=gpu PriorityTier=1 {every}",
            f"PartitionName=urgent PriorityTier=9 PreemptMode=OFF {every}",
        ]
        self.config.write_text("\n".join(lines) + "\n")
        devices = ["AutoDetect=off"]
        for k in range(self.gpus):
            device = here / f"gpu{k}"
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")  # SLURM insists on a device node
            devices.append(
                f"NodeName=n[1-{self.nodes}] Name=gpu Flags=nvidia_gpu_env File={device}"
            )
        (here / "gres.conf").write_text("\n".join(devices) + "\n")

    def _link(self) -> None:
        for name in ("slurm.conf", "gres.conf"):
            link = ETC / name
            if link.exists() and not link.is_symlink():
                raise UnavailableError(f"{link} belongs to a real cluster")
            if link.exists() and link.readlink() != self.folder / name:
                raise UnavailableError(f"{link} leads to another configuration")
        ETC.mkdir(parents=True, exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            (ETC / name).unlink(missing_ok=True)  # a link left by a crash leads nowhere
            (ETC / name).symlink_to(self.folder / name)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = {"key-file": "key", "socket": "socket", "seed-file": "seed", "log-file": "log"}
        named = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        self._run("munged", "--force", f"--pid-file={self.folder}/munged.pid", *named)

    def _start_accounting(self) -> None:
        here, user = self.folder, getpass.getuser()
        data, door = here / "mariadb", here / "mariadb.socket"
        data.mkdir(exist_ok=True)
        plain = ["--no-defaults", f"--user={user}", f"--datadir={data}"]
        self._run("mariadb-install-db", *plain, "--auth-root-authentication-method=normal")
        with (here / "mariadb.log").open("w") as log:
            subprocess.Popen(
                ["mariadbd", *plain, f"--socket={door}", "--skip-networking",
                 f"--pid-file={here}/mariadb.pid"], stdout=log, stderr=log,
            )  # fmt: skip
        self._wait_for("the database answers", door.exists)
        config = here / "slurmdbd.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={here}/munge.socket\n"
            f"DbdHost={socket.gethostname().split('.')[0]}\nDbdAddr=127.0.0.1\n"
            f"DbdPort={self.port + 100}\nSlurmUser={user}\nPidFile={here}/slurmdbd.pid\n"
            f"LogFile={here}/slurmdbd.log\nStorageType=accounting_storage/mysql\n"
            "StorageHost=localhost\nStorageUser=root\nStorageLoc=slurm_acct_db\n"
        )
        # The daemon has no setting for the database's socket; its client library has this one.
        self._run("slurmdbd", SLURM_CONF=str(config), MYSQL_UNIX_PORT=str(door))
        self._wait_for("slurmdbd answers", self._accounting_answers)
        for what in (["cluster", "jstartest"], ["account", "test"], ["user", user, "account=test"]):
            self._run("sacctmgr", "-i", "-Q", "add", *what)

    def _accounting_answers(self) -> bool:
        try:
            self._run("sacctmgr", "-n", "list", "cluster")
        except RuntimeError:
            return False
        return True


def _alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _end(pid_file: Path) -> None:
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 2)):
        if not _alive(pid_file):
            return
        os.kill(int(pid_file.read_text()), number)
        deadline = time.monotonic() + seconds
        while _alive(pid_file) and time.monotonic() < deadline:
            time.sleep(0.05)


def main() -> None:
    """The command line."""
    cluster = Cluster.from_environment()
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command == "start":
        cluster.start()
    elif command == "stop":
        cluster.stop()
    elif command == "env":
        print(f"export SLURM_CONF={cluster.config}")
    elif command == "selftest":
        print(cluster.selftest(), end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
