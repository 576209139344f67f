"""Memory of this process and the page cache, from the operating system's own accounting."""

import ctypes
import mmap
import os
import sys
from pathlib import Path

import psutil

from minillm_lab.jobs.limits import STATUS, status
from minillm_lab.records import Memory


def measure() -> Memory:
    """The resident set now, with its anonymous and file-backed parts.

    On Linux these are RssAnon, and RssFile + RssShmem, of /proc/self/status. Mapped weights count
    as file-backed only if their pages are in this process.
    """
    if STATUS.exists():
        fields = status()
        anonymous = fields["RssAnon"]
        file_backed = fields["RssFile"] + fields["RssShmem"]
        return Memory(
            resident=anonymous + file_backed, anonymous=anonymous, file_backed=file_backed
        )
    if sys.platform == "darwin":
        return Memory(resident=physical_footprint(), anonymous=None, file_backed=None)
    return Memory(resident=psutil.Process().memory_info().rss, anonymous=None, file_backed=None)


def storage_bytes_read() -> int | None:
    """Bytes that the system has read from storage for this process (Linux), or None.

    They are ``read_bytes`` of /proc/self/io, which counts read-ahead for mapped files, but not
    page-cache hits.
    """
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def physical_footprint() -> int:
    """On macOS, the Memory of Activity Monitor, from proc_pid_rusage(RUSAGE_INFO_V2)."""
    info = (ctypes.c_uint64 * 64)()
    ctypes.CDLL(None).proc_pid_rusage(os.getpid(), 2, ctypes.byref(info))
    # struct rusage_info_v2: uuid (2 words), then user, system, pkg_idle, interrupt, pageins,
    # wired_size, resident_size, phys_footprint
    return int(info[9])


def evict(files: list[Path]) -> str | None:
    """Drop the files' pages from the page cache; return why they are still there, or None.

    It needs posix_fadvise, and pages that another process has mapped stay.
    """
    if not hasattr(os, "posix_fadvise"):
        return "this system cannot drop a file from its page cache"
    try:
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        stayed = max(resident_share(file) for file in files)
    except OSError as error:  # some network and read-only file systems
        return f"the file cannot be dropped from the page cache ({error.strerror})"
    if stayed < 0.01:
        return None
    holders = sorted(programs_mapping(files))
    why = (
        f"mapped by {', '.join(holders)}; end that program"
        if holders
        else "no other visible program has it mapped"
    )
    return f"{100 * stayed:.0f} % of the file stayed in the page cache: {why}"


def programs_mapping(files: list[Path]) -> set[str]:
    """The names of other programs in /proc that have one of the files mapped."""
    places = {str(file.resolve()) for file in files}
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            maps = (process / "maps").read_text().splitlines()
            if process.name != str(os.getpid()) and places & {
                line.split(maxsplit=5)[-1] for line in maps
            }:
                found.add((process / "comm").read_text().strip())
        except OSError:  # another user's, or gone
            continue
    return found


def resident_share(file: Path) -> float:
    """The share of a file's pages that are in the page cache (mincore), from 0 to 1."""
    size = file.stat().st_size
    if not size:
        return 0.0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with file.open("rb") as opened:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, opened.fileno(), 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    pages = -(-size // mmap.PAGESIZE)
    seen = (ctypes.c_ubyte * pages)()
    try:
        if libc.mincore(address, size, seen):
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(address, size)
    return sum(byte & 1 for byte in bytes(seen)) / pages
