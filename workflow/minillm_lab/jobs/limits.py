"""Limits: the cores and memory that this process may take, and the memory it has taken."""

import math
import os
import resource
import sys
from pathlib import Path

import psutil

STATUS = Path("/proc/self/status")


def allowed_cpus() -> set[int]:
    """The logical CPUs that this process may run on (its affinity mask)."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cgroups(root: Path) -> list[Path]:
    """The folders of this process's control group (v2) and of the groups that contain it."""
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        own = ""
    return [root / own, *(root / own).parents] if own else [root]


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """The CPU time that a container's limit allows, in CPUs; infinite if there is no limit.

    Reads cgroup v2's ``cpu.max`` from this process's group up to the root, and v1's quota.
    """
    quotas = [math.inf]
    for folder in cgroups(cgroup):
        try:
            limit, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if limit != "max":
            quotas.append(int(limit) / int(period))
    try:
        limit_v1 = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        if limit_v1 > 0:
            quotas.append(limit_v1 / int((cgroup / "cpu/cpu.cfs_period_us").read_text()))
    except (OSError, ValueError):
        pass
    return min(quotas)


def physical_cores() -> int:
    """The number of physical cores that this process may use, at least 1.

    Affinity and container limits count, hyper-threads do not: inference gains nothing from a second
    thread on a core.
    """
    allowed = allowed_cpus()
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    count = len(cores)
    if not Path("/sys/devices/system/cpu").exists():  # macOS: no topology files, no affinity
        count = psutil.cpu_count(logical=False) or len(allowed)
    return max(1, min(count, math.floor(cpu_quota()) if cpu_quota() < math.inf else count))


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may take: the machine's, a container's or a shell's limit.

    Reads cgroup v2's ``memory.max``, v1's limit, and RLIMIT_AS.
    """
    limits = [psutil.virtual_memory().total]
    files = [folder / "memory.max" for folder in cgroups(cgroup)]
    for file in [*files, cgroup / "memory/memory.limit_in_bytes"]:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def memory_available(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that a new process may take now, within the machine's and all other limits.

    A container's limit (cgroup v2) counts without the memory that the container already holds;
    file pages not in use do not count as held.
    """
    free = [psutil.virtual_memory().available, memory_limit(cgroup)]
    for folder in cgroups(cgroup):
        try:
            limit = int((folder / "memory.max").read_text())
            held = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not there, or "max"
            continue
        free.append(limit - held + int(stat.get("inactive_file", 0)))
    return max(0, min(free))


def peak() -> int:
    """The high-water mark of this process's resident set, in bytes.

    Linux: VmHWM, which starts anew with the program (ru_maxrss keeps a parent's).
    """
    if STATUS.exists():
        return status()["VmHWM"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def status() -> dict[str, int]:
    """The memory fields of /proc/self/status, in bytes."""
    fields = {}
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value.split()[0]) * 1024
    return fields
