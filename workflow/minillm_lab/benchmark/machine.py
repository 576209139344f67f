"""The machine that measures: its facts, its fingerprint, and its other load."""

import hashlib
import json
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from minillm_lab.jobs.limits import allowed_cpus, physical_cores
from minillm_lab.records import Conditions

SLEEP_SHOWS = 0.05  # seconds; two clocks that are read one after the other differ by less
_stops = 0  # times that this process was stopped and continued


def cpu_model() -> str:
    """The CPU's own name, as the operating system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        name = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(name, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def accelerators() -> list[dict[str, str]]:
    """NVIDIA GPUs with driver and memory, as nvidia-smi names them; empty if there is none."""
    names = ("name", "driver", "memory")
    return [
        dict(zip(names, row, strict=True))
        for row in ask_nvidia("name,driver_version,memory.total", "csv,noheader")
    ]


def accelerator_memory(which: Literal["free", "total"]) -> list[int]:
    """Bytes of each NVIDIA GPU, those that are free or all."""
    found = ask_nvidia(f"memory.{which}", "csv,noheader,nounits")  # in MiB
    return [int(row[0]) << 20 for row in found if row[0].isdigit()]


def ask_nvidia(fields: str, format_: str) -> list[list[str]]:
    """The values of nvidia-smi's ``fields`` for each GPU; empty if there is none."""
    query = ["nvidia-smi", f"--query-gpu={fields}", f"--format={format_}"]
    try:
        listed = subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(", ") for line in listed.splitlines()]


@dataclass(frozen=True)
class Interruptions:
    """Suspends of the machine and stops of the process, counted up to now."""

    asleep: float  # seconds that the machine was suspended since it started
    stops: int  # how often this process was stopped (Ctrl-Z, SIGSTOP) and continued

    def since(self, before: "Interruptions") -> str | None:
        """The interruption after ``before``, in words; None if there was none."""
        if (slept := self.asleep - before.asleep) > SLEEP_SHOWS:
            return f"the machine slept for {slept:.1f} s"
        return "the process was stopped" if self.stops > before.stops else None


def interruptions() -> Interruptions:
    """The counts now. The clocks that time samples stand still while the machine sleeps.

    On Linux CLOCK_BOOTTIME counts sleep and CLOCK_MONOTONIC does not; on macOS CLOCK_MONOTONIC does
    and CLOCK_UPTIME_RAW does not. A virtual machine does not notice that its host pauses it.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        counting, standing = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
    elif sys.platform == "darwin":
        counting, standing = time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW
    else:
        return Interruptions(0.0, _stops)
    return Interruptions(time.clock_gettime(counting) - time.clock_gettime(standing), _stops)


def notice_stops() -> None:
    """Count from now on how often this process is stopped and continued."""

    def continued(*_: object) -> None:
        global _stops
        _stops += 1

    signal.signal(signal.SIGCONT, continued)


SHORTEST_WATCH = 0.2  # seconds; the system counts CPU time in steps of 0.01
OTHER_LOAD = 0.2  # cores; if other processes keep more busy, a sample is doubtful


def disturbing(load: float, threads: int) -> bool:
    """Whether other processes' load, in cores, takes cores from ``threads`` inference threads."""
    return load > OTHER_LOAD + max(0, len(allowed_cpus()) - threads)


class Watch:
    """Watches the machine's other load, from its making until ``conditions``."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.busy, self.stolen = _cpu_seconds()
        self.own = time.process_time()
        self.clocks: list[float | None] = [None, None]

    def clock_starts(self) -> None:
        """Note the CPU clock under load, before the measurement."""
        self.clocks[0] = _frequency()

    def clock_ends(self) -> None:
        """Note the CPU clock again, after the measurement."""
        self.clocks[1] = _frequency()

    def other_load(self, helped: float = 0.0) -> float | None:
        """Cores that other processes kept busy since the start; None after too short a time.

        ``helped`` is the CPU seconds since then of processes that belong to this one.
        """
        elapsed = time.monotonic() - self.start
        if elapsed < SHORTEST_WATCH:
            return None
        others = _cpu_seconds()[0] - self.busy - (time.process_time() - self.own) - helped
        return max(0.0, others / elapsed)

    def conditions(self) -> Conditions:
        """Other load, stolen time and clock change since the start; governor and power now."""
        elapsed = time.monotonic() - self.start
        stolen = _cpu_seconds()[1]
        first, last = self.clocks
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        return Conditions(
            other_load_cores=self.other_load() or 0.0,
            stolen_share=(
                None
                if stolen is None or self.stolen is None
                else (stolen - self.stolen) / elapsed / (psutil.cpu_count() or 1)
            ),
            frequency_change=last / first if first and last else None,
            governor=_governor(),
            on_battery=None if battery is None else not battery.power_plugged,
        )


def _cpu_seconds() -> tuple[float, float | None]:
    """CPU seconds of all processes since boot, and those stolen by a hypervisor."""
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0)
    stolen: float | None = getattr(times, "steal", None)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # in user already
    return sum(times) - waiting - guests - (stolen or 0.0), stolen


def _frequency() -> float | None:
    """The CPU clock in MHz, or None."""
    try:
        found = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return found.current if found and found.current else None


def _governor() -> str | None:
    """Linux's CPU frequency governor, or None."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def describe() -> dict[str, Any]:
    """The machine as a result records it; ``fingerprint`` is the same while the hardware is."""
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": physical_cores(),
        "logical_cpus": len(allowed_cpus()),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "accelerators": accelerators(),
    }
    stable = {key: facts[key] for key in ("cpu", "architecture", "cores", "logical_cpus")}
    stable["memory_gib"] = round(facts["memory_bytes"] / 2**30)
    stable["system"] = platform.system()
    stable["accelerators"] = [gpu["name"] for gpu in facts["accelerators"]]
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()
    return {"fingerprint": digest[:12]} | facts
