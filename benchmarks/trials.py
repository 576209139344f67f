"""What trials can tell: many of them, of known pairs, in a shuffled order; then whole comparisons.

    python benchmarks/trials.py run FOLDER --minutes 30    # take trials until the time is over
    python benchmarks/trials.py show FOLDER                # the table, and FOLDER/states.svg

Needs the models and the prompt of the default experiment, which `snakemake --cores 1` makes. The
pairs: Q4_K_M with itself; with itself slowed down by 2 and 4 % (a wait behind each call of the
engine); Q4_K_M and F16; F16 in llama.cpp and FP16 in Transformers.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

import yaml  # noqa: E402

from minillm_lab import statistics  # noqa: E402
from minillm_lab.benchmark.collect import read_trial, sample_of  # noqa: E402
from minillm_lab.config import load_experiment  # noqa: E402
from minillm_lab.result import Trial, TrialSample  # noqa: E402
from minillm_lab.states import find_states  # noqa: E402

PAIRS = {  # name: variant, baseline, how much slower the variant is made, weight in the shuffle
    "same": ("q4_k_m", "q4_k_m", 0.0, 3),
    "2 % slower": ("q4_k_m", "q4_k_m", 0.02, 2),
    "4 % slower": ("q4_k_m", "q4_k_m", 0.04, 2),
    "Q4_K_M to F16": ("q4_k_m", "f16", 0.0, 2),
    "F16 to FP16": ("f16", "fp16", 0.0, 2),
}
SLOW = """
import sys
if "slices" in (line := " ".join(sys.orig_argv)) and "/slowed." in line:
    import time
    from minillm_lab.runtimes.llama_cpp import LlamaCpp
    def slowed(method):
        def call(self, *arguments):
            start = time.perf_counter()
            method(self, *arguments)
            end = time.perf_counter()
            while time.perf_counter() < end + {share} * (end - start):
                pass
        return call
    LlamaCpp.prefill, LlamaCpp.decode = slowed(LlamaCpp.prefill), slowed(LlamaCpp.decode)
"""


def take(pair: str, number: int, folder: Path) -> None:
    """Run one trial of a pair, as the workflow does."""
    variant, baseline, slower, _ = PAIRS[pair]
    experiment = load_experiment(yaml.safe_load((ROOT / "config.yaml").read_text()))
    model = experiment.model_name(variant)
    weights = [ROOT / experiment.weights(model, experiment.form(v)) for v in (variant, baseline)]
    paths = [str(ROOT / "workflow")]
    if slower:
        slow = folder / f"slow-{slower}"
        slow.mkdir(exist_ok=True)
        (slow / "sitecustomize.py").write_text(SLOW.replace("{share}", str(slower)))
        link = slow / f"slowed.{weights[0].name}"
        link.exists() or link.symlink_to(weights[0])
        weights[0], paths = link, [str(slow), *paths]
    prompt = ROOT / f"{experiment.results}/prompts/{model}.json"
    output = folder / f"{pair}.{number}.json"
    command = [
        *(sys.executable, "-m", "minillm_lab.benchmark.trial", "--trial", str(number)),
        *("--variant", variant, "--baseline", baseline, "--weights", *map(str, weights)),
        *("--prompts", str(prompt), str(prompt), "--output", str(output)),
        *("--settings", *(experiment.trial_settings(v) for v in (variant, baseline))),
    ]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=True)


def run(folder: Path, minutes: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    order = [name for name, pair in PAIRS.items() for _ in range(pair[3])]
    numbers = {p: len([*folder.glob(f"{p}.*.json")]) for p in PAIRS}
    shuffle = random.Random(sum(numbers.values()))
    while True:
        for pair in shuffle.sample(order, len(order)):
            if time.monotonic() > end:
                return
            numbers[pair] += 1
            take(pair, numbers[pair], folder)


def show(folder: Path, size: int) -> None:
    """Whole comparisons of ``size`` trials each, that follow each other in one state."""
    trials: list[tuple[str, TrialSample]] = []
    for path in folder.glob("*.json"):
        read = read_trial(path)
        if isinstance(read, Trial):
            trials.append((path.name.split(".")[0], sample_of(read)))
    trials.sort(key=lambda t: t[1].measured_at)
    states, labels = find_states([r for _, t in trials for r in (t.before, t.after)])
    for i, state in enumerate(states):
        print(
            f"state {'ABCDEF'[i]}: {state.share:.0%} of the readings,"
            f" {state.compute_flops / 1e9:.0f} GF/s, {state.memory_bytes_per_second / 1e9:.1f} GB/s"
        )
    disturbed = [t.disturbed for _, t in trials if t.disturbed]
    ends = list(zip(labels[::2], labels[1::2], strict=True))
    mixed = sum(a != b or a is None for a, b in ends)
    print(f"{len(trials)} trials: {len(disturbed)} disturbed, {mixed} not within one state")
    for metric in ("decode_tokens_per_second", "prefill_tokens_per_second"):
        for i in range(len(states)):
            for pair in PAIRS:
                values = [
                    t.ratios[metric]
                    for (name, t), (a, b) in zip(trials, ends, strict=True)
                    if name == pair and a == b == i and not t.disturbed
                ]
                if len(values) < size:
                    continue
                spread = float(np.std(np.log(values), ddof=1))
                whole = [values[k : k + size] for k in range(0, len(values) - size + 1, size)]
                found = [statistics.of_rounds([[v] for v in some]) for some in whole]
                half = [e.ci95[1] / e.value - 1 for e in found if e.ci95]
                claims = [e for e in found if (p := e.p()) is not None and p <= 0.05]
                print(
                    f"{metric.partition('_')[0]} {'ABCDEF'[i]} {pair}: {len(values)} trials, ×"
                    f"{np.exp(np.mean(np.log(values))):.4f}, one trial ±{spread:.2%};"
                    f" {len(claims)} of {len(whole)} comparisons of {size} claim a difference,"
                    f" {len({e.value > 1 for e in claims})} sign(s);"
                    f" half-width {np.median(half):.2%}"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--size", type=int, default=6, help="trials in a comparison")
    given = parser.parse_args()
    run(given.folder, given.minutes) if given.what == "run" else show(given.folder, given.size)
