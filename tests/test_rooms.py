"""The rooms of the lab: imports run downwards through them, and no module outgrows one screen."""

import ast
import re
from collections.abc import Iterator

import pytest

from conftest import ROOT

PACKAGE = ROOT / "workflow/minillm_lab"
FROM_THE_TOP = [
    "__main__", "commands", "report", "comparison", "benchmark", "recipes", "quality", "models",
    "runtimes", "experiment", "result", "recipe", "records", "header", "ggml", "estimates",
    "wording", "jobs", "__init__",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: str) -> str:
    """The room of a module named below the package, as ``quality.text``."""
    return path.partition(".")[0]


def imported_by(source: str) -> Iterator[str]:
    """The lab's modules that a source imports anywhere, in functions and for types as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # import_module, -m
            yield from re.findall(r"^minillm_lab\.[\w.]+$", node.value)


@pytest.mark.parametrize("room", FROM_THE_TOP)
def test_a_room_imports_from_those_below_it(room: str) -> None:
    below = {*FROM_THE_TOP[FROM_THE_TOP.index(room) :], "__version__"}
    for file in MODULES:
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        if room_of(name) != room:
            continue
        for module in imported_by(file.read_text()):
            package, _, rest = module.partition(".")
            if package == "minillm_lab" and rest:
                assert room_of(rest) in below, f"{name} imports {module}"


@pytest.mark.parametrize(
    "line",
    [
        "from minillm_lab import estimates, report",
        "def f():\n    import minillm_lab.report.table",
        "import_module('minillm_lab.report.table')",
        "from minillm_lab.report import (\n    table,\n)",
    ],
)
def test_no_way_to_import_goes_unseen(line: str) -> None:
    assert any(m.startswith("minillm_lab.report") for m in imported_by(line))


def test_the_lab_imports_its_own_by_from_alone() -> None:
    """Staleness follows those (``jobs.staleness.files_of``)."""
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith("minillm_lab")], file


def test_every_module_has_a_room_and_none_is_larger_than_350_lines() -> None:
    rooms = {room_of(".".join(f.relative_to(PACKAGE).with_suffix("").parts)) for f in MODULES}
    assert rooms == set(FROM_THE_TOP)
    long = {f.name: n for f in MODULES if (n := len(f.read_text().splitlines())) > 350}
    assert not long
    assert len((ROOT / "workflow/rules/common.smk").read_text().splitlines()) < 70
