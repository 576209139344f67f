"""Killed at random moments and started again with the same command, a run ends as if undisturbed.

The suite kills a small run a few times. The whole test, three variants in three rounds and trials,
with their quality, 30 kills: ``pytest tests/workflow/test_kills.py --long -s``.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import Lab, tiny_config
from hub_server import COMMIT, Fault, Hub
from minillm_lab.jobs.files import sha256_of
from quality_lab import QUESTIONS, TEXT

FILE = "tiny-f16.gguf"


@pytest.fixture
def hub(tiny_gguf: Path) -> Iterator[Hub]:
    """The tiny model, arriving slowly enough to be killed on the way."""
    with Hub() as hub:
        hub.publish("acme/tiny", {FILE: tiny_gguf.read_bytes()})
        hub.faults[FILE] = Fault(trickle=0.2)
        yield hub


def experiment(hub: Hub, whole: bool) -> dict[str, Any]:
    """Two variants in two rounds and trials; or three, in three, with their quality."""
    file = {"file": FILE, "sha256": hub.sha256("acme/tiny", FILE)}
    gguf = {"repository": "acme/tiny", "revision": COMMIT, "files": {"F16": file}}
    config = tiny_config(Path(), repetitions=1, warmups=0)
    config["models"] = {"tiny": {"hub": {"gguf": gguf}}}
    if whole:
        config |= {"rounds": 3, "trials": 3}
        config["variants"]["q8_0"] = {"runtime": "llama.cpp", "quantization": "Q8_0"}
        reference = {"runtime": "llama.cpp", "quantization": "F16"}
        quality = {"text": "text.txt", "questions": "questions.yaml", "context": 64}
        config["quality"] = quality | {"reference": reference}
    return config


def prepared(folder: Path, config: dict[str, Any], hub: Hub) -> Lab:
    lab = Lab(folder, config, {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home")})
    lab.path("text.txt").write_text(TEXT)
    lab.path("questions.yaml").write_text(QUESTIONS)
    return lab


@dataclass
class Killed:
    """What was killed, and the finished rounds and trials that were measured again."""

    victims: list[str] = field(default_factory=list)
    repeated: set[tuple[str, str]] = field(default_factory=set)  # name and what it held


def kill_once(lab: Lab, chance: random.Random) -> str:
    """Start the run and kill snakemake, or one of its jobs, at a random moment; what was hit."""
    with lab.path("killed.log").open("ab") as said:
        run = psutil.Popen(
            lab.command("--cores", "1"), cwd=lab.folder, env=lab.env(), stdout=said, stderr=said
        )
        seen: set[psutil.Process] = set()
        started, wanted = time.monotonic(), chance.choice([1, 1, 1, 2, 2, 3])
        while run.poll() is None and len(seen) < wanted and time.monotonic() - started < 60:
            seen |= set(named(run))
            time.sleep(0.02)
        time.sleep(chance.uniform(0, chance.choice([0.3, 0.3, 2.0])))  # into that job, or past it
        jobs = named(run)
        victim = chance.choice([run, *jobs]) if run.poll() is None else None
        hit = "nothing" if victim is None else "snakemake" if victim is run else module_of(victim)
        if victim is not None:
            victim.kill()
            if victim is not run:
                time.sleep(chance.uniform(0, 0.3))  # snakemake notices, or not any more
                run.kill()
        run.wait(60)
        psutil.wait_procs(jobs, timeout=10)
        assert not [job for job in jobs if job.is_running()], "a job outlived snakemake"
    return hit


def named(run: psutil.Popen) -> list[psutil.Process]:
    """The lab's own processes below a run."""
    try:
        below = run.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if module_of(process)]


def module_of(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    modules = [word for word in command if word.startswith("minillm_lab.")]
    return modules[-1] if modules and modules[0] != "minillm_lab.jobs.watcher" else ""


def measured(lab: Lab) -> dict[str, str]:
    """The rounds and trials that are there, and what they hold."""
    files = (f for kind in ("rounds", "trials") for f in lab.path(f"results/{kind}").glob("*.json"))
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files}


def without_timings(lab: Lab) -> dict[str, Any]:
    """All that a run leaves, timings and the memory of processes apart."""
    left: dict[str, Any] = {}
    for file in sorted(f for part in ("models", "results") for f in lab.path(part).rglob("*")):
        if not file.is_file() or "logs" in file.parts:
            continue
        name = str(file.relative_to(lab.folder))
        if file.suffix == ".gguf":
            left[name] = sha256_of(file)
        elif file.parent.name in ("prompts", "models", "texts", "answers", "quality"):
            left[name] = file.read_bytes() if file.suffix == ".json" else "a reference"
        elif file.parent.name == "results" and file.stem in lab.config["variants"]:
            result = lab.json(name)
            left[name] = [result[key] for key in ("model", "protocol", "quality", "output")]
            left[name] += [{key: metric["n"] for key, metric in result["metrics"].items()}]
        else:
            left[name] = "is there"
    return left


def test_killed_at_random_it_ends_as_undisturbed(
    tmp_path: Path, hub: Hub, pytestconfig: pytest.Config
) -> None:
    whole = pytestconfig.getoption("--long")
    config = experiment(hub, whole)
    seed = random.SystemRandom().randrange(10**6)
    print(f"\nseed {seed}")  # shown when it fails
    chance, lab, killed = random.Random(seed), prepared(tmp_path / "killed", config, hub), Killed()
    finished: dict[str, str] = {}
    while len(killed.victims) < (30 if whole else 3):
        hit = kill_once(lab, chance)
        now = measured(lab)
        killed.repeated |= finished.items() - now.items()
        finished |= now
        if hit == "nothing":
            break  # it was faster
        killed.victims.append(hit)
        print(f"{len(killed.victims)}: {hit}; {len(now)} rounds and trials are there")
    lab.run()  # the same command, and no --unlock
    killed.repeated |= finished.items() - measured(lab).items()
    print(f"repeated: {sorted(name for name, _ in killed.repeated)}")
    assert len(killed.repeated) <= len(killed.victims)
    undisturbed = prepared(tmp_path / "undisturbed", config, hub)
    undisturbed.run()
    assert without_timings(lab) == without_timings(undisturbed)
    assert "Nothing to be done" in lab.run().stderr


def test_a_second_run_is_refused_and_leaves_the_first_its_lock(tmp_path: Path, hub: Hub) -> None:
    lab = prepared(tmp_path / "lab", experiment(hub, whole=False), hub)
    hub.faults[FILE] = Fault(stall_after=1 << 20)
    first = subprocess.Popen(
        lab.command("--cores", "1"), cwd=lab.folder, env=lab.env(), stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while FILE not in hub.sent and time.monotonic() < deadline:
            time.sleep(0.05)
        locks = sorted(lab.path(".snakemake/locks").iterdir())
        said = lab.snakemake("--cores", "1", ok=False).stderr
        assert "another snakemake is at work in this folder" in said
        assert locks and sorted(lab.path(".snakemake/locks").iterdir()) == locks
    finally:
        first.kill()
        first.communicate()
    hub.faults.clear()
    copy = prepared(tmp_path / "copy", lab.config, hub)  # a copy of the folder is its own
    copy.run("results/prompts/tiny.json")
    lab.run("results/prompts/tiny.json")
