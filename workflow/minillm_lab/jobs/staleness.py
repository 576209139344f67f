"""Staleness that Snakemake does not see: changed imports, and local files of any date.

A job declares one small file, which holds the checksum of each module that its command loads.
Snakemake compares the file's content, or its age where it has no records.
"""

import hashlib
import os
import re
from functools import cache
from pathlib import Path

from minillm_lab.jobs.files import write_text

PACKAGE = Path(__file__).parent.parent
FOLDER = Path(".snakemake/minillm-lab/code")
SAMPLES, SAMPLE = 16, 1 << 16  # number of samples of a local file's content, and bytes of each
FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t].*\n|\n)+", re.M)
IMPORT = re.compile(r"^[ \t]*from (minillm_lab[\w.]*) import (\([^)]*\)|.*)", re.M)


@cache
def files_of(module: str) -> frozenset[Path]:
    """The files that importing a module of the lab loads, including imports inside functions.

    ``module`` is the name below the package, such as ``benchmark.round``.
    """
    found: set[Path] = set()
    waiting = set(_loaded(f"minillm_lab.{module}"))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting |= _imported(file)
    return frozenset(found)


@cache
def code(*modules: str) -> str:
    """The path of a file that changes with the code that a job runs: modules and their imports."""
    return code_file(FOLDER, *modules)


def code_by_runtime(
    runtimes: dict[str, str], *modules: str, beside: str | None = None
) -> dict[str, str]:
    """The file of ``code`` for jobs that run modules and a runtime, by the runtime's name.

    ``runtimes``: their modules by name. ``beside``: one that every such job loads as well. All
    files are made at once: Snakemake lists their folder once, and does not see what comes later.
    """
    also = [runtimes[beside]] if beside else []
    return {name: code(*modules, *{module, *also}) for name, module in runtimes.items()}


def code_file(folder: Path, *modules: str) -> str:
    """The path of a file in ``folder`` with the checksums of all that the modules load.

    It is written only if its content changes. A file that was lost gets the date of the newest
    module, so that no result looks older than its code only because the file is written again.
    """
    files = sorted({file for module in modules for file in files_of(module)})
    text = "".join(f"{_checksum(file)}  {file.relative_to(PACKAGE)}\n" for file in files)
    path = folder / "+".join(sorted(modules))
    if not path.exists():
        write_text(path, text)
        newest = max(file.stat().st_mtime for file in files)
        os.utime(path, (newest, newest))
    elif path.read_text("utf-8") != text:
        write_text(path, text)
    return str(path)


def stamp(path: str) -> str:
    """Size, date and a checksum of samples of a local file, which change if it is replaced.

    The text is empty if there is no file; Snakemake itself says so.
    """
    try:
        with Path(path).open("rb") as file:
            about = os.fstat(file.fileno())
            digest = hashlib.sha256()
            for i in range(SAMPLES):
                file.seek(i * max(0, about.st_size - SAMPLE) // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    except OSError:
        return ""
    return f"{about.st_size} {about.st_mtime_ns} {digest.hexdigest()}"


@cache
def _loaded(name: str) -> frozenset[Path]:
    """The files of a module and of the packages that contain it; none for an unknown module."""
    place = PACKAGE.parent.joinpath(*name.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.exists():
        return frozenset()
    inner = place.relative_to(PACKAGE.parent)
    around = (PACKAGE.parent / up / "__init__.py" for up in inner.parents if up.name)
    return frozenset({file, *around})


@cache
def _imported(file: Path) -> set[Path]:
    """The files that a file's own imports load directly."""
    source = FOR_TYPES.sub("", file.read_text("utf-8"))
    found: set[Path] = set()
    for package, names in IMPORT.findall(source):
        found |= _loaded(package)
        for name in names.partition("#")[0].strip("()").split(","):
            found |= _loaded(f"{package}.{name.split()[0]}") if name.strip() else frozenset()
    return found


@cache
def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
