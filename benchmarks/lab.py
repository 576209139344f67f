"""What the scripts share: the default experiment, its files and llama.cpp's programs, if there.

Every script runs in the environment that `make run` makes, which holds the lab itself.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from minillm_lab.experiment.config import load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.jobs.errors import LabError

ROOT = Path(__file__).resolve().parent.parent
GGUF = ("f16", "q8_0", "q5_k_m", "q4_k_m")  # the default experiment's variants in llama.cpp


def default_plan() -> Plan:
    """The plan of the default experiment; its paths are relative to ``ROOT``."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return Plan(load_experiment(config, "config.yaml"), "workflow")


def made(path: str) -> Path:
    """A file of the default experiment's. Raises LabError where it has not been made."""
    if not (ROOT / path).exists():
        raise LabError(f"{path} is not there; `snakemake --cores 1 {path}` makes it")
    return ROOT / path


def weights_of(plan: Plan, variants: Iterable[str]) -> dict[str, Path]:
    """The GGUF file of each variant. Raises LabError where one is missing or is none."""
    found = {}
    for variant in variants:
        if variant not in plan.experiment.variants or plan.runtime(variant) != "llama.cpp":
            raise LabError(f"{variant}: is no variant of config.yaml that llama.cpp runs")
        found[variant] = made(plan.weights(variant))
    return found


def program(name: str) -> str:
    """A program by its path or its name on PATH. Raises LabError where it is not there."""
    if (found := shutil.which(name)) is None:
        raise LabError(f"{name}: no such program; benchmarks/README.md says how to build it")
    return found


def output_of(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Standard output and error of a program. Raises LabError with its last line if it fails."""
    changed = os.environ | (environment or {})
    done = subprocess.run(command, env=changed, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabError(f"{Path(command[0]).name} failed: {said[-1].removeprefix('error: ')}")
    return done.stdout, done.stderr
