"""How a job died is said in one line, whatever killed it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conftest import ROOT

ENVIRONMENT = {"PYTHONPATH": str(ROOT / "workflow"), "PATH": "/usr/bin:/bin"}
DIES = {
    "abort": ("import os; os.abort()", 128 + signal.SIGABRT, "crashed (SIGABRT)"),
    "segfault": (
        "import ctypes; ctypes.string_at(0)", 128 + signal.SIGSEGV, "crashed (SIGSEGV)",
    ),
    "killed": (
        "import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL, "out of memory",
    ),
}  # fmt: skip


def job(*command: object) -> list[str]:
    return [sys.executable, "-m", "minillm_lab.jobs.watcher", str(os.getpid()), *map(str, command)]


@pytest.mark.parametrize("code, status, said", DIES.values(), ids=DIES.keys())
def test_a_death_is_one_line_that_names_the_file(
    code: str, status: int, said: str, tmp_path: Path
) -> None:
    step = [sys.executable, "-c", code, "--weights", "a file.gguf", "--log", tmp_path / "log"]
    done = subprocess.run(job(*step), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a file.gguf: ") and said in line
    assert (tmp_path / "log").read_text() == line + "\n"
    assert not list(tmp_path.glob("core*"))


@pytest.mark.parametrize("status", [0, 1, 7])
def test_what_ends_by_itself_keeps_its_status_and_its_words(status: int) -> None:
    code = f"import sys; print('said'); sys.exit({status})"
    done = subprocess.run(
        job(sys.executable, "-c", code), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "said\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_command_does_not_outlive_its_job() -> None:
    with subprocess.Popen(
        job(sys.executable, "-c", "import time; print('on', flush=True); time.sleep(600)"),
        env=ENVIRONMENT, stdout=subprocess.PIPE,
    ) as started:  # fmt: skip
        assert started.stdout is not None and started.stdout.readline() == b"on\n"
        (step,) = psutil.Process(started.pid).children()
        started.kill()
        for _ in range(1000):
            if not step.is_running() or step.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.01)
    pytest.fail("the step is still there")
