"""The workflow on a real Slurm of two nodes, which tests/cluster/slurm.py starts here."""

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm import Slurm, missing, slurm

from conftest import Lab, tiny_config
from minillm_lab.result import Result, read_record

PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm")
pytestmark = [
    pytest.mark.skipif(
        bool(missing()), reason=f"no {', '.join(missing())}: apt install slurm-wlm munge"
    ),
    pytest.mark.skipif(PLUGIN is None, reason="no Slurm executor: make cluster"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two kinds of node need two cores"),
]
CORES = {"large": 2, "small": 1}
PROFILE = ("--profile", "workflow/profiles/slurm")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    nodes = {f"n-{feature}": (cores, feature) for feature, cores in CORES.items()}
    with slurm(tmp_path_factory.mktemp("slurm") / "s", nodes) as started:
        yield started


@pytest.fixture(scope="module")
def config(tiny_gguf: Path) -> dict[str, Any]:
    """F16 on both kinds of node, Q4_K_M on one."""
    config = tiny_config(tiny_gguf, nodes={name: {"constraint": name} for name in CORES})
    config["variants"]["f16"]["node"] = ["large", "small"]
    config["variants"]["q4_k_m"]["node"] = "large"
    config |= {"baseline": "f16-large", "threads": "auto", "readme": None}
    return config | {"repetitions": 1, "warmups": 0}


def on_slurm(folder: Path, config: dict[str, Any], cluster: Slurm) -> Lab:
    """A lab with the shipped profile as someone would adapt it."""
    lab = Lab(folder, config, cluster.environment())
    path = lab.path("workflow/profiles/slurm/config.yaml")
    profile = yaml.safe_load(path.read_text())
    profile |= {
        "slurm-status-command": "squeue",
        "slurm-no-account": True,
        "slurm-init-seconds-before-status-checks": 8,
        "latency-wait": 5,
    }
    profile["set-resources"]["prompt"] = {"mem_mb": "100 * attempt ** 4"}  # too little, at first
    path.write_text(yaml.safe_dump(profile))
    return lab


@pytest.fixture(scope="module")
def ran(cluster: Slurm, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The experiment as jobs of Slurm."""
    lab = on_slurm(tmp_path_factory.mktemp("cluster") / "lab", config, cluster)
    lab.snakemake(*PROFILE)
    return lab


def rule(job: dict[str, str]) -> str:
    """The rule that a job of Slurm ran, from the comment that the executor gives it."""
    return job["Comment"].removeprefix("rule_").partition("_wildcards")[0]


def test_it_makes_the_files_of_a_local_run(
    ran: Lab, config: dict[str, Any], tmp_path: Path
) -> None:
    local = Lab(tmp_path / "lab", config)
    local.run()
    made, expected = (
        {path.relative_to(lab.folder) for path in lab.path("results").rglob("*")}
        for lab in (ran, local)
    )
    assert made == expected
    for variant in ("f16-large", "f16-small", "q4_k_m"):
        assert read_record(ran.path(f"results/{variant}.json"), Result).variant == variant


def test_every_rule_was_a_job_and_nothing_ran_beside_a_benchmark(ran: Lab, cluster: Slurm) -> None:
    jobs = cluster.jobs()
    assert {rule(job) for job in jobs} >= set(ran.planned("--forceall"))
    rounds = [job for job in jobs if rule(job) == "round"]
    assert len(rounds) == 6
    for job in rounds:
        assert int(job["NumCPUs"]) == CORES[job["NodeList"].removeprefix("n-")]
        beside = [
            other
            for other in jobs
            if other is not job
            and other["NodeList"] == job["NodeList"]
            and other["StartTime"] < job["EndTime"]
            and job["StartTime"] < other["EndTime"]
        ]
        assert not beside


def test_no_later_round_overtakes_one_that_waits(ran: Lab, cluster: Slurm) -> None:
    rounds = [
        (int(job["Comment"].rpartition("_")[2]), job)
        for job in cluster.jobs()
        if rule(job) == "round" and job["NodeList"] == "n-large"
    ]
    assert sorted(number for number, _ in rounds) == [1, 1, 2, 2]
    overtaken = [
        (waiting, later)
        for first, waiting in rounds
        for second, later in rounds
        if first < second and waiting["SubmitTime"] < later["StartTime"] < waiting["StartTime"]
    ]
    assert not overtaken


def test_a_job_killed_for_memory_asks_for_more(ran: Lab, cluster: Slurm) -> None:
    killed, finished = (job for job in cluster.jobs() if rule(job) == "prompt")
    assert killed["JobState"] != "COMPLETED" and killed["MinMemoryNode"] == "100M"
    assert finished["JobState"] == "COMPLETED" and finished["MinMemoryNode"] == "1600M"


def test_kinds_of_node_are_kept_apart(ran: Lab) -> None:
    found = {name: ran.json(f"results/f16-{name}.json") for name in CORES}
    assert {name: r["runtime"]["threads"] for name, r in found.items()} == CORES
    assert {name: r["machine"]["cores"] for name, r in found.items()} == CORES
    ratios = ran.json("results/comparison.json")["ratios"]
    assert ratios["q4_k_m"] and not ratios["f16-small"]
    table = ran.path("results/comparison.md").read_text()
    assert all(f"`{r['machine']['fingerprint']}`" in table for r in found.values())


def test_losing_jobs_a_node_and_the_controller_repeats_no_finished_round(
    cluster: Slurm, config: dict[str, Any], tmp_path: Path
) -> None:
    lab = on_slurm(tmp_path / "lab", config | {"rounds": 5}, cluster)
    with subprocess.Popen(
        lab.command(*PROFILE), cwd=lab.folder, env=lab.env(), stderr=subprocess.DEVNULL
    ) as running:
        while not list(lab.path(".").glob("results/rounds/*")) and running.poll() is None:
            time.sleep(0.2)
        cluster.stop("n-large", signal.SIGKILL)
        cluster.stop("slurmctld")
        cluster.start("slurmctld")
        cluster.start("n-large")
        cluster.wait_until_up()
        cluster.client("scancel", "--state=RUNNING", "--user", str(os.getuid()))
        running.send_signal(signal.SIGINT)  # and the terminal was closed
        running.wait(120)
    finished = {p: p.stat().st_mtime_ns for p in lab.path("results/rounds").iterdir()}
    assert 0 < len(finished) < 15
    lab.snakemake(*PROFILE)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert lab.json("results/comparison.json")["ratios"]["q4_k_m"]
