"""The workflow on a real Slurm of two nodes, which tests/cluster/slurm.py starts here.

One run serves all tests. With ``--long`` it first loses jobs, a node and the controller, and the
same command ends it.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from slurm import Slurm, missing, slurm

from conftest import Lab, tiny_config
from minillm_lab.records import read_record
from minillm_lab.result import Result

EXECUTOR = Path(sys.prefix, "cluster")  # where `make test` puts it
pytestmark = [
    pytest.mark.skipif(
        bool(missing()), reason=f"no {', '.join(missing())}: apt install slurm-wlm munge"
    ),
    pytest.mark.skipif(not EXECUTOR.is_dir(), reason=f"no Slurm executor in {EXECUTOR}: make test"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two kinds of node need two cores"),
]
CORES = {"large": 2, "small": 1}
VARIANTS = ["fp16", "f16", "q8_0", "q5_k_m", *(f"q4_k_m-{kind}" for kind in CORES)]
ROUNDS = {f"results/rounds/{variant}.{n}.json" for variant in VARIANTS for n in (1, 2)}
BESIDE_THE_BASELINE = [v for v in VARIANTS if v not in ("f16", "q4_k_m-small")]
TRIALS = {f"results/trials/{variant}.{n}.json" for variant in BESIDE_THE_BASELINE for n in (1,)}
MEASURED = ROUNDS | TRIALS
PROFILE = ("--profile", "workflow/profiles/slurm")
SQUEUE = """\
#!/bin/sh
# The executor asks more and more seldom while no job ends: answer when one did, or after 20 s.
for _ in $(seq 80); do
    answer=$({squeue} "$@")
    ended=$(echo "$answer" | grep -cvE "PENDING|CONFIGURING|RUNNING|COMPLETING")
    [ "$ended" = "$(cat {folder}/ended)" ] || break
    sleep 0.25
done
echo "$ended" > {folder}/ended
echo "$answer"
"""


def rule(job: dict[str, str]) -> str:
    """The rule that a job of Slurm ran, from the comment that the executor gives it."""
    return job["Comment"].removeprefix("rule_").partition("_wildcards")[0]


def file_of(job: dict[str, str]) -> str:
    """The file that a round's or a trial's job made."""
    kind, _, what = job["Comment"].removeprefix("rule_").partition("_wildcards_")
    variant, _, number = what.rpartition("_")
    return f"results/{kind}s/{variant}.{number}.json"


def completed(cluster: Slurm) -> list[dict[str, str]]:
    return [job for job in cluster.jobs() if job["JobState"] == "COMPLETED"]


def measures(job: dict[str, str]) -> bool:
    return rule(job) in ("round", "trial")


def completed_measurements(cluster: Slurm) -> list[dict[str, str]]:
    return [job for job in completed(cluster) if measures(job)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    nodes = {f"n-{feature}": (cores, feature) for feature, cores in CORES.items()}
    with slurm(tmp_path_factory.mktemp("slurm") / "s", nodes) as started:
        squeue = started.folder / "bin" / "squeue"
        real = squeue.rename(started.folder / "squeue")
        squeue.write_text(SQUEUE.format(squeue=real, folder=started.folder))
        squeue.chmod(0o755)
        yield started


@pytest.fixture(scope="module")
def lab(cluster: Slurm, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The default experiment's kinds of jobs on a tiny model, Q4_K_M on both kinds of node.

    The profile is as one would adapt it.
    """
    config = tiny_config(tiny_gguf, rounds=2, trials=1, repetitions=1, warmups=0)
    config["nodes"] = {name: {"constraint": name} for name in CORES}
    config["quality"] = {"chunks": 2, "context": 64, "questions": None}
    config["variants"] |= {
        "fp16": {"runtime": "transformers"},
        "q8_0": {"runtime": "llama.cpp", "quantization": "Q8_0"},
        "q5_k_m": {"runtime": "llama.cpp", "quantization": "Q5_K_M"},
    }
    for variant in config["variants"].values():
        variant["node"] = "large"
    config["variants"]["q4_k_m"] |= {"node": [*CORES], "threads": "auto"}
    environment = cluster.environment() | {"PYTHONPATH": str(EXECUTOR)}
    lab = Lab(tmp_path_factory.mktemp("cluster") / "lab", config, environment)
    path = lab.path("workflow/profiles/slurm/config.yaml")
    profile = yaml.safe_load(path.read_text())
    profile |= {
        "slurm-status-command": "squeue",
        "slurm-no-account": True,
        "slurm-init-seconds-before-status-checks": 1,
        "seconds-between-status-checks": 1,
        "latency-wait": 5,
    }
    profile["set-threads"]["score"] = 1  # the small node has no more
    profile["set-resources"]["prompt"] = {"mem_mb": "100 * attempt ** 4"}  # too little, at first
    path.write_text(yaml.safe_dump(profile))
    return lab


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, lab: Lab, cluster: Slurm) -> dict[str, str]:
    """The rounds and trials that were finished when all went wrong at once, as they were then."""
    if not request.config.getoption("--long"):
        return {}
    with subprocess.Popen(
        lab.command(*PROFILE),
        cwd=lab.folder,
        env=lab.env(),
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `make test &` ignores it
    ) as running:
        while not completed_measurements(cluster) and running.poll() is None:
            time.sleep(0.5)
        cluster.stop("n-large", signal.SIGKILL)
        cluster.stop("slurmctld")
        cluster.start("slurmctld")
        cluster.start("n-large")
        cluster.wait_until_up()
        cluster.client("scancel", "--state=RUNNING", "--user", str(os.getuid()))
        running.send_signal(signal.SIGINT)  # and the terminal was closed
        running.wait(120)
    files = map(file_of, completed_measurements(cluster))
    return {file: lab.path(file).read_text() for file in files}


@pytest.fixture(scope="module")
def ran(lab: Lab, finished: dict[str, str]) -> Lab:
    """The experiment as jobs of Slurm, whatever went wrong before."""
    lab.snakemake(*PROFILE)
    return lab


def test_no_finished_round_or_trial_is_repeated(
    request: pytest.FixtureRequest, ran: Lab, finished: dict[str, str]
) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("losing jobs, a node and the controller takes minutes: --long")
    assert 0 < len(finished) < len(MEASURED)
    assert {file: ran.path(file).read_text() for file in finished} == finished


def test_the_results_are_all_that_a_local_run_wants(ran: Lab) -> None:
    summary = csv.DictReader(ran.snakemake("--summary").stdout.splitlines(), delimiter="\t")
    plans = {row["output_file"]: row["plan"] for row in summary}
    assert set(plans.values()) == {"no update"}
    results = {str(p.relative_to(ran.folder)) for p in ran.path("results").rglob("*.*")}
    logs = {name for name in results if name.startswith("results/logs/")}
    assert results - logs == {name for name in plans if name.startswith("results/")}
    for variant in VARIANTS:
        assert read_record(ran.path(f"results/{variant}.json"), Result).quality


def test_every_job_ran_on_the_cluster_and_once(
    request: pytest.FixtureRequest, ran: Lab, cluster: Slurm
) -> None:
    planned, done = Counter(ran.planned("--forceall")), Counter(map(rule, completed(cluster)))
    lost = request.config.getoption("--long")  # and made again
    assert done >= planned if lost else done == planned


def test_nothing_ran_beside_a_benchmark(ran: Lab, cluster: Slurm) -> None:
    jobs = [job for job in cluster.jobs() if job["NodeList"].startswith("n-")]
    started = [job for job in jobs if measures(job)]
    assert {file_of(job) for job in started} == MEASURED
    for job in started:
        assert int(job["NumCPUs"]) == CORES[job["NodeList"].removeprefix("n-")]
        beside = [
            other
            for other in jobs
            if other["JobId"] != job["JobId"]
            and other["NodeList"] == job["NodeList"]
            and other["StartTime"] < job["EndTime"]
            and job["StartTime"] < other["EndTime"]
        ]
        assert not beside


def test_what_is_numbered_later_overtakes_nothing_that_waits(ran: Lab, cluster: Slurm) -> None:
    on_large = [
        (int(job["Comment"].rpartition("_")[2]), job)
        for job in cluster.jobs()
        if measures(job) and job["NodeList"] == "n-large"
    ]
    assert {number for number, _ in on_large} == {1, 2}
    overtaken = [
        (waiting, later)
        for first, waiting in on_large
        for second, later in on_large
        if first < second and waiting["SubmitTime"] < later["StartTime"] < waiting["StartTime"]
    ]
    assert not overtaken


def test_a_job_killed_for_memory_asks_for_more(ran: Lab, cluster: Slurm) -> None:
    killed, finished = (job for job in cluster.jobs() if rule(job) == "prompt")
    assert killed["JobState"] != "COMPLETED" and killed["MinMemoryNode"] == "100M"
    assert finished["JobState"] == "COMPLETED" and finished["MinMemoryNode"] == "1600M"


def test_kinds_of_node_are_kept_apart(ran: Lab) -> None:
    found = {name: ran.json(f"results/q4_k_m-{name}.json") for name in CORES}
    assert {name: r["runtime"]["threads"] for name, r in found.items()} == CORES
    assert {name: r["machine"]["cores"] for name, r in found.items()} == CORES
    ratios = ran.json("results/comparison.json")["ratios"]
    assert ratios["q4_k_m-large"] and not ratios["q4_k_m-small"]
    table = ran.path("results/comparison.md").read_text()
    assert all(f"`{r['machine']['fingerprint']}`" in table for r in found.values())
