"""The rooms of the lab: imports run downwards through them, and no module outgrows one screen."""

import re

import pytest

from conftest import ROOT

PACKAGE = ROOT / "workflow/minillm_lab"
FROM_THE_TOP = [
    "__main__", "commands", "report", "comparison", "benchmark", "quality", "models", "runtimes",
    "experiment", "result", "records", "header", "estimates", "wording", "jobs", "__init__",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: str) -> str:
    """The room of a module named below the package, as ``quality.text``."""
    return path.partition(".")[0]


@pytest.mark.parametrize("room", FROM_THE_TOP)
def test_a_room_imports_from_those_below_it(room: str) -> None:
    """Imports inside functions and for types count as well."""
    below = FROM_THE_TOP[FROM_THE_TOP.index(room) :]
    for file in MODULES:
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        if room_of(name) != room:
            continue
        for package, listed in re.findall(
            r"^\s*from minillm_lab\.?([\w.]*) import (.+)", file.read_text(), re.M
        ):
            imported = room_of(package) or listed.split()[0].strip(",")
            assert imported in below or imported == "__version__", f"{name} imports {imported}"


def test_every_module_has_a_room_and_none_is_larger_than_350_lines() -> None:
    rooms = {room_of(".".join(f.relative_to(PACKAGE).with_suffix("").parts)) for f in MODULES}
    assert rooms == set(FROM_THE_TOP)
    long = {f.name: n for f in MODULES if (n := len(f.read_text().splitlines())) > 350}
    assert not long
    assert len((ROOT / "workflow/rules/common.smk").read_text().splitlines()) < 70
