"""The files that a job depends on, derived from imports: they are those that Python loads."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, Lab, tiny_config
from minillm_lab.jobs.staleness import PACKAGE, code_file, files_of

RULES = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
OF_JOBS = {*re.findall(r"python -m minillm_lab\.([\w.]+)", RULES)} - {"jobs.watcher"}
OF_JOBS |= {"benchmark.slices", "runtimes.llama_cpp", "runtimes.transformers"}
LOAD = """
import ast, importlib, sys
importlib.import_module("minillm_lab." + sys.argv[1])
asked = set()
def ours():
    there = list(sys.modules.items())
    return {name: m.__file__ for name, m in there if name.startswith("minillm_lab")}
while new := set(ours()) - asked:  # what functions import when they are called
    asked |= new
    for name in new:
        for node in ast.walk(ast.parse(open(ours()[name]).read())):
            if isinstance(node, ast.FunctionDef):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.ImportFrom) and inner.module.startswith("minillm_lab"):
                        importlib.import_module(inner.module)
print(*ours().values(), sep="\\n")
"""


@pytest.mark.parametrize("module", sorted(OF_JOBS))
def test_a_jobs_files_are_those_that_python_loads(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, module], capture_output=True, text=True, check=True
    )
    loaded = {Path(line) for line in done.stdout.splitlines()}
    assert loaded == files_of(module)


def test_every_rule_names_its_own_module() -> None:
    """Fetching aside: new code downloads nothing again."""
    named = {
        *re.findall(r'"((?:models|recipes|benchmark|quality|comparison|report)\.[\w.]+)"', RULES)
    }
    assert OF_JOBS - {"models.fetch", "report.partial"} <= named | {
        "runtimes.llama_cpp",
        "runtimes.transformers",
    }


def test_what_a_round_does_not_depend_on() -> None:
    names = {str(file.relative_to(PACKAGE)) for file in files_of("benchmark.round")}
    assert {"benchmark/round.py", "records.py", "jobs/files.py"} <= names
    assert not names & {
        "experiment/config.py",
        "result.py",
        "report/__init__.py",
        "runtimes/llama_cpp.py",
    }


def test_a_file_of_code_is_as_old_as_what_it_says(tmp_path: Path) -> None:
    path = Path(code_file(tmp_path, "benchmark.round"))
    newest = max(file.stat().st_mtime for file in files_of("benchmark.round"))
    assert path.stat().st_mtime == pytest.approx(newest)
    text = path.read_text()
    assert len(text.splitlines()) == len(files_of("benchmark.round"))

    os.utime(path, (0, 0))
    code_file(tmp_path, "benchmark.round")
    assert path.stat().st_mtime == 0  # it says the same: left alone
    path.write_text(text.replace("round.py", "other.py"))
    os.utime(path, (0, 0))
    code_file(tmp_path, "benchmark.round")
    assert path.read_text() == text
    assert path.stat().st_mtime > time.time() - 60


def test_results_are_planned_where_files_of_code_are_lost(tiny_gguf: Path, tmp_path: Path) -> None:
    """Snakemake lists a folder once, and does not see what is written there later."""
    lab = Lab(tmp_path / "lab", tiny_config(tiny_gguf))
    lab.run("results/prompts/tiny.json")
    targets = [f"results/{variant}.json" for variant in ("q4_k_m", "f16")]
    for _ in range(8):  # in what order Snakemake looks is chance
        for path in lab.path(".snakemake/minillm-lab/code").glob("*runtimes.llama_cpp"):
            path.unlink()
        assert lab.planned("--cores", "1", *targets)["collect"] == 2
