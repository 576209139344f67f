"""One snakemake at a time in a folder, and no lock that outlives a killed one.

Snakemake's own locks are files: they stay when it is killed and then block every later run. So each
snakemake also holds a lock of the operating system, which ends with its process.
"""

import fcntl
import shutil
import sys
from pathlib import Path
from typing import TextIO


def hold(folder: Path) -> TextIO | None:
    """Remove Snakemake's locks from ``folder`` (.snakemake) if no snakemake lives to hold them.

    If one lives, its locks stay and a line says so. The returned file is the lock: keep it open.
    Returns None if the file system has no locks; Snakemake's own then stay as they are.
    """
    locks = folder / "locks"
    try:
        folder.mkdir(exist_ok=True)
        held = (folder / "minillm-lab.lock").open("w")
    except OSError as error:
        sys.exit(
            f"error: cannot write {folder.absolute()}: {error.strerror}; work in another folder"
        )
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(locks, ignore_errors=True)
    except BlockingIOError:
        if any(locks.glob("*.lock")):
            print(
                "note: another snakemake is at work in this folder; wait for it or stop it"
                " (--unlock does not help)",
                file=sys.stderr,
            )
    except OSError:
        return None
    fcntl.flock(held, fcntl.LOCK_SH)  # while anyone shares it, nobody can hold it alone
    return held
