"""One snakemake at a time in a folder, and no lock that outlives the one that was killed.

Snakemake's own locks are files: they stay when it is killed, and then refuse every later run. So
each snakemake also holds a lock of the operating system, which goes when its process does.
"""

import fcntl
import shutil
import sys
from pathlib import Path
from typing import TextIO


def hold(folder: Path) -> TextIO | None:
    """Remove Snakemake's locks from ``folder`` (.snakemake) if no snakemake lives to hold them.

    Where one does, its locks stay, and a line says so. The file returned is the lock: keep it.
    None where the file system has no locks; Snakemake's own then stay as they are.
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
                "note: another snakemake is at work in this folder: wait for it, or stop it;"
                " there is nothing to unlock",
                file=sys.stderr,
            )
    except OSError:
        return None
    fcntl.flock(held, fcntl.LOCK_SH)  # as long as anyone shares it, nobody can hold it alone
    return held
