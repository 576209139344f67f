"""A round's own copy of its weights on the machine's own disk, so that a cold load measures it.

On network storage, evicting a file drops this machine's page cache and not the server's.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minillm_lab.jobs.command import progress
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space

PREFIX = ".minillm-lab-copy."
MEGABYTE = 10**6


@contextmanager
def copied(weights: Path, folder: str | None) -> Iterator[Path]:
    """A copy of a GGUF file or a model's folder in ``folder``, removed when the block ends.

    Without a folder, yields the weights themselves. Raises LabError, with nothing copied, if the
    folder is missing or has too little room.
    """
    if folder is None:
        yield weights
        return
    scratch = Path(folder)
    if not (scratch.is_dir() and os.access(scratch, os.W_OK | os.X_OK)):
        raise LabError(
            f"scratch: {scratch} is not a folder on this machine that can be written to;"
            " make it, or name another"
        )
    remove_left_overs(scratch)
    files = [f for f in weights.iterdir() if f.is_file()] if weights.is_dir() else [weights]
    size = sum(file.stat().st_size for file in files)
    check_space(scratch / weights.name, size)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=scratch) as own:
        lock(Path(own))
        copy = Path(own) / weights.name
        target = copy if weights.is_dir() else Path(own)
        try:
            target.mkdir(exist_ok=True)
            with progress(f"copying {weights} to {scratch}", size // MEGABYTE, "MB") as advance:
                for file in files:
                    for _ in flushed_copy(file, target / file.name):
                        advance(1)
        except OSError as error:
            raise LabError(f"cannot copy {weights} to {scratch}: {error.strerror}") from error
        yield copy


def flushed_copy(source: Path, target: Path) -> Iterator[None]:
    """Copy a file and flush it to the disk, since unwritten pages cannot be evicted.

    Yields after each megabyte.
    """
    with source.open("rb") as read, target.open("wb") as written:
        while piece := read.read(MEGABYTE):
            written.write(piece)
            yield
        written.flush()
        os.fsync(written.fileno())


def lock(folder: Path) -> int | None:
    """Lock a folder until this process ends or closes the returned number; None if it is locked."""
    opened = None
    try:
        opened = os.open(folder, os.O_RDONLY)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or somebody else's
        if opened is not None:
            os.close(opened)
        return None
    return opened


def remove_left_overs(scratch: Path) -> None:
    """Remove the copies of killed rounds, which no process has locked."""
    for left_over in scratch.glob(f"{PREFIX}*"):
        if (held := lock(left_over)) is not None:
            shutil.rmtree(left_over, ignore_errors=True)
            os.close(held)
