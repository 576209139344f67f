"""What a plan of many variants costs: dry runs, held against `snakemake --version`.

    python benchmarks/scaling.py                          # 1, 10, 100 and 1,000 variants
    python benchmarks/scaling.py --variants 10000 --repetitions 1

The variants are ten types, ten thread counts and as many contexts as it takes of one local model,
under the default experiment's protocol (trials, rounds, quality), as one entry with three lists.
Sizes take turns, each after a `snakemake --version`. CPU time and the ratio to that of the
`--version` before it are medians; memory is the most that any run took.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from lab import ROOT, made
from minillm_lab.jobs.command import progress, run
from minillm_lab.jobs.errors import LabError

TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_M", "Q2_K"]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
DRY_RUN = [*SNAKEMAKE, "--cores", "1", "--dry-run"]


@dataclass
class Cost:
    """What a command took: seconds, bytes, and what it printed."""

    cpu: float
    wall: float
    memory: int
    printed: str


def cost(command: list[str], folder: Path) -> Cost:
    """Run a command to its end. Raises LabError where it fails."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        printed = said.read()
    if process.returncode:
        raise LabError(f"snakemake failed: {printed.strip().splitlines()[-1]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss * unit, printed)


def prepare(folder: Path, variants: int, model: Path) -> int:
    """A folder with the workflow and an experiment of so many variants; how many there are."""
    for name in ("workflow", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    types, threads = TYPES[: min(10, variants)], list(range(1, 1 + min(10, -(-variants // 10))))
    contexts = [1024 + 8 * i for i in range(max(1, variants // 100))]
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {
        "model": "m",
        "models": {"m": {"path": str(model)}},
        "variants": {
            "first": {"runtime": "llama.cpp", "quantization": types, "threads": threads}
            | {"context": contexts}
        },
        "baseline": f"first-{types[0].lower()}-t1-c1024",
        "readme": None,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return len(types) * len(threads) * len(contexts)


def jobs_in(printed: str) -> int:
    """The number of jobs that a dry run lists. Raises LabError where it lists none."""
    if (found := re.search(r"^total\s+(\d+)$", printed, re.M)) is None:
        raise LabError("the dry run listed no jobs")
    return int(found[1])


def main(arguments: argparse.Namespace) -> None:
    model = made("models/smollm2-135m-instruct/F16.gguf").resolve()
    with tempfile.TemporaryDirectory() as name:
        folders, counts = {}, {}
        for variants in arguments.variants:
            folders[variants] = Path(name, str(variants))
            counts[variants] = prepare(folders[variants], variants, model)
        versions: dict[int, list[Cost]] = {n: [] for n in folders}
        plans: dict[int, list[Cost]] = {n: [] for n in folders}
        total = arguments.repetitions * len(folders)
        with progress("dry runs", total, "runs") as advance:
            for _ in range(arguments.repetitions):
                for variants, folder in folders.items():
                    versions[variants].append(cost([*SNAKEMAKE, "--version"], folder))
                    plans[variants].append(cost(DRY_RUN, folder))
                    advance(1)
    every = [c for some in versions.values() for c in some]
    print("| variants | jobs | CPU time | × `snakemake --version` | by the clock | memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(
        f"| `snakemake --version` | | {median(c.cpu for c in every):.2f} s | 1"
        f" | {median(c.wall for c in every):.2f} s | {max(c.memory for c in every) / 1e6:.0f} MB |"
    )
    for variants, some in plans.items():
        pairs = list(zip(some, versions[variants], strict=True))
        print(
            f"| {counts[variants]:,} | {jobs_in(some[0].printed):,}"
            f" | {median(c.cpu for c in some):.2f} s"
            f" | {median(c.cpu / v.cpu for c, v in pairs):.1f}"
            f" | {median(c.wall for c in some):.2f} s"
            f" | {max(c.memory for c in some) / 1e6:.0f} MB |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--repetitions", type=int, default=3)
    run(main, parser)
