"""The cores that inference may use: affinity and container limits count, hyper-threads do not."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from minillm_lab.jobs import limits


def test_no_job_asks_a_cluster_for_more_cores_than_a_node_has() -> None:
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    greedy = {
        part.partition(":")[0]
        for part in rules.split("\nrule ")[1:]
        if "threads: ALL_CORES" in part
    }
    assert "sensitivity" in greedy and greedy <= {*profile["set-threads"]}


def test_affinity_counts() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from minillm_lab.jobs import limits; print(limits.physical_cores())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    "limit, cpus", [("max 100000", math.inf), ("150000 100000", 1.5), ("50000 100000", 0.5)]
)
def test_a_containers_limit_counts(limit: str, cpus: float, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert limits.cpu_quota(tmp_path) == cpus


def test_at_least_one_core_under_any_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cpu_quota", lambda: 0.5)
    assert limits.physical_cores() == 1


def test_hyper_threads_share_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    monkeypatch.setattr(limits, "allowed_cpus", lambda: set(siblings))
    monkeypatch.setattr(limits, "cpu_quota", lambda: math.inf)
    read = Path.read_text

    def topology(path: Path) -> str:
        if "thread_siblings_list" in str(path):
            return siblings[int(path.parent.parent.name.removeprefix("cpu"))]
        return read(path)

    monkeypatch.setattr(Path, "read_text", topology)
    assert limits.physical_cores() == 2
