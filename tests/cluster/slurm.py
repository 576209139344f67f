"""A Slurm of this one machine: munge, slurmctld and a slurmd per node, all within one folder.

``python tests/cluster/slurm.py FOLDER`` starts it until Ctrl-C and says how to use it. It needs
Debian's slurm-wlm and munge, neither root nor anything in /etc, and leaves a Slurm that is
configured there alone.
"""

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CLIENTS = ("sacct", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # when this process is killed
CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
ReturnToService=2
SlurmdTimeout=10
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=1
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm and munge that are not installed here."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    return [program for program in PROGRAMS if not shutil.which(program, path=path)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Slurm:
    """A Slurm in ``folder``; ``nodes`` are their names, each with its cores and its one feature."""

    folder: Path
    nodes: dict[str, tuple[int, str]]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What a shell needs to use it: the clients on PATH, which know where it is."""
        return {"PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])}

    def configure(self) -> None:
        """Write slurm.conf, munge's key, and clients that read that slurm.conf.

        The clients are wrappers, since the executor takes SLURM_CONF out of its environment.
        """
        for name in ("state", "bin", *(f"spool.{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        host = socket.gethostname().split(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()}"
            f" CPUs={cores} RealMemory={memory * 9 // 10} Feature={feature}"
            for node, (cores, feature) in self.nodes.items()
        ]
        user = pwd.getpwuid(os.getuid()).pw_name
        text = CONFIG.format(
            folder=self.folder, host=host, port=free_port(), user=user, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(text)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        for client in CLIENTS:
            wrapper = self.folder / "bin" / client
            wrapper.write_text(
                f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which(client)} "$@"\n'
            )
            wrapper.chmod(0o755)

    def start(self, name: str) -> None:
        """Start ``munged``, ``slurmctld`` or the slurmd of a node."""
        files = [f"--{w}-file={self.folder}/munge.{w}" for w in ("key", "pid", "log", "seed")]
        commands = {
            "munged": [
                "munged", "--foreground", "--force", *files,
                f"--socket={self.folder}/munge.socket",
            ],
            "slurmctld": ["slurmctld", "-D"],
        }  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*ENDS_WITH_US, *commands.get(name, ["slurmd", "-D", "-N", name])],
                env=os.environ | {
                    "PATH": f"{os.environ['PATH']}:/usr/sbin",
                    "SLURM_CONF": str(self.folder / "slurm.conf"),
                },
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop what was started, and wait for it."""
        process = self.running.pop(name)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self, *command: str) -> str:
        """The output of a client: ``squeue``, ``scontrol``, …"""
        return subprocess.run(
            command, env=os.environ | self.environment(), check=True, capture_output=True, text=True
        ).stdout

    def wait_until_up(self) -> None:
        """Wait until every node offers itself or works."""
        for _ in range(60):
            try:
                states = self.client("sinfo", "--noheader", "--Node", "--format=%T").split()
            except subprocess.CalledProcessError:
                states = []
            if len(states) == len(self.nodes) and set(states) <= {"idle", "mixed", "allocated"}:
                return
            time.sleep(0.5)
        logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
        raise RuntimeError("Slurm did not start:\n" + "\n".join(logs))

    def jobs(self) -> list[dict[str, str]]:
        """Every job so far as Slurm's controller knows it: JobState, StartTime, Comment, …"""
        lines = self.client("scontrol", "--oneliner", "show", "jobs").splitlines()
        jobs = (line for line in lines if line.startswith("JobId="))  # it says if there are none
        pairs = ((word.partition("=") for word in job.split() if "=" in word) for job in jobs)
        return [{key: value for key, _, value in line} for line in pairs]


@contextmanager
def slurm(folder: Path, nodes: dict[str, tuple[int, str]]) -> Iterator[Slurm]:
    """A running Slurm; stopped at the end, whatever happens."""
    cluster = Slurm(folder, nodes)
    cluster.configure()
    try:
        for name in ("munged", "slurmctld", *nodes):
            cluster.start(name)
        cluster.wait_until_up()
        yield cluster
    finally:
        if "slurmctld" in cluster.running:
            subprocess.run(
                ["scancel", "--user", str(os.getuid())], env=os.environ | cluster.environment()
            )
        for name in reversed(list(cluster.running)):
            cluster.stop(name)


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(signal.SIGINT, lambda *_: sys.exit())
    with slurm(folder.absolute(), {"n1": (os.cpu_count() or 1, "all")}) as cluster:
        print(f"export PATH={cluster.folder}/bin:$PATH   # Ctrl-C here stops Slurm", flush=True)
        signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder for its configuration and logs")
    if absent := missing():
        sys.exit(f"error: not installed: {', '.join(absent)}; apt install slurm-wlm munge")
    main(parser.parse_args().folder)
