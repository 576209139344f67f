"""Run a job's command for snakemake: it does not outlive snakemake, and its death is explained.

llama.cpp ends its process where something that it takes for granted is not so, and a system that is
out of memory kills one: neither leaves room for a message of the command's own.

``python -m minillm_lab.jobs.watcher PARENT COMMAND…``, where PARENT is snakemake's process.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # of Linux's prctl
READ = ("--weights", "--gguf", "--source", "--tokenizer")  # options that name what a job reads


def dies_with(parent: int) -> Callable[[], None]:
    """What a process calls to be killed when ``parent``, which started it, is gone (Linux).

    It leaves no core dump, which would be as large as its model.
    """

    def bind() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # gone before that
                os.kill(os.getpid(), signal.SIGKILL)

    return bind


def talking(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a process that is spoken to line by line; it dies with this one."""
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
    """What a signal says about why a command ended."""
    from minillm_lab.jobs.limits import memory_limit

    name = signal.Signals(number).name
    if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return f"stopped ({name})"
    unit = 1 if sys.platform == "darwin" else 1024
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    memory = f"it had taken {taken / 1e6:.0f} MB of memory, of {memory_limit() / 1e6:.0f} MB"
    if number == signal.SIGKILL:
        return (
            f"killed ({name}), by the system out of memory if by nobody else: {memory};"
            " take a smaller quantization, or close other programs"
        )
    return f"crashed ({name}): its model file is damaged, or memory ran out: {memory}"


def explain(command: list[str], number: int) -> None:
    """Say in one line, at the terminal and in the command's log, what ended it."""
    options = dict(pairwise(command))
    read = (options[name] for name in READ if not options.get(name, "{").startswith("{"))
    what = next(read, options.get("--output") or options.get("-m", command[0]))
    line = f"error: {what}: {cause_of_death(number)}"
    print(line, file=sys.stderr)
    if "--log" in options:
        with Path(options["--log"]).open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")


def main() -> None:
    parent, *command = sys.argv[1:]
    dies_with(int(parent))()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command by itself
    environment = os.environ | {"GGML_NO_BACKTRACE": "1"}
    child = subprocess.Popen(command, env=environment, preexec_fn=dies_with(os.getpid()))
    status = child.wait()
    if status < 0:
        explain(command, -status)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
