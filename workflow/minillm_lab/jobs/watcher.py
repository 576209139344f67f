"""Run a job's command: it does not outlive snakemake, its death is explained, its time is noted.

llama.cpp ends its process if an assumption of its own fails, and the system kills a process when
memory runs out. In both cases the command cannot print a message itself.

``python -m minillm_lab.jobs.watcher PARENT COMMAND…``, where PARENT is snakemake's process id.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from minillm_lab.jobs import time_left

PR_SET_PDEATHSIG = 1  # of Linux's prctl
READ = ("--weights", "--gguf", "--source", "--tokenizer")  # options that name a job's model file


def dies_with(parent: int) -> Callable[[], None]:
    """A function that a child process calls, to be killed when its parent is gone (Linux).

    ``parent`` is the parent's process id. The child leaves no core dump, which would be as large as
    its model.
    """

    def bind() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it was gone before
                os.kill(os.getpid(), signal.SIGKILL)

    return bind


def talking(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a process that reads and writes single lines; it dies with this one."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=dies_with(os.getpid()),
        **more,
    )


def cause_of_death(number: int) -> str:
    """Why a command ended, in words, by the number of the signal that ended it."""
    from minillm_lab.jobs.limits import memory_limit

    name = signal.Signals(number).name
    if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return f"stopped ({name})"
    unit = 1 if sys.platform == "darwin" else 1024
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    memory = f"it had taken {taken / 1e6:.0f} of {memory_limit() / 1e6:.0f} MB of memory"
    if number == signal.SIGKILL:
        return (
            f"killed ({name}), probably since the system was out of memory: {memory}; take a"
            " smaller"
            " quantization, or close other programs"
        )
    return (
        f"crashed ({name}): its model file is damaged, memory ran out, or llama.cpp was compiled"
        f" for another processor: {memory}; fetch the file again, take a smaller quantization, or"
        " compile anew (docs/reliability.md)"
    )


def explain(command: list[str], number: int) -> None:
    """Say in one line, on the terminal and in the command's log, why it ended."""
    options = dict(pairwise(command))
    read = (options[name] for name in READ if not options.get(name, "{").startswith("{"))
    name = next(read, options.get("--output") or options.get("-m", command[0]))
    line = f"error: {name}: {cause_of_death(number)}"
    print(line, file=sys.stderr)
    if "--log" in options:
        with Path(options["--log"]).open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")


def main() -> None:
    parent, *command = sys.argv[1:]
    dies_with(int(parent))()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command by itself
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    began = time.monotonic()
    child = subprocess.Popen(command, env=environment, preexec_fn=dies_with(os.getpid()))
    status = child.wait()
    if status < 0:
        explain(command, -status)
    elif not status and "--output" in command:
        time_left.note(command[command.index("--output") + 1], time.monotonic() - began)
        time_left.tell()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
