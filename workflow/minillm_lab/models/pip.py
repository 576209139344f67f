"""Downloads from the package index, through pip."""

import os
import subprocess
import sys
from pathlib import Path

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.watcher import dies_with


def pip_download(pinned: str, folder: Path, option: str) -> Path:
    """Download one distribution into an empty folder. Raises LabError with pip's own reason.

    ``option`` is pip's, and asks for a wheel or for a source archive.
    """
    command = [
        sys.executable, "-m", "pip", "download", pinned, "--no-deps", option,
        "--dest", str(folder), "--disable-pip-version-check",
        *([] if sys.stderr.isatty() else ["--quiet"]),  # else its progress bar
    ]  # fmt: skip
    done = subprocess.run(
        command,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=dies_with(os.getpid()),
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = reasons[-1].removeprefix("ERROR: ") if reasons else "pip gave no reason"
        raise LabError(f"cannot download {pinned}: {reason}")
    return next(folder.iterdir())
