"""How long llama-bench and llama-perplexity take over the default experiment's four GGUF files.

    python benchmarks/time_taken.py --llama-bench PATH --llama-perplexity PATH

Beside them the lab's scores: of ten chunks and eight replies, against the F16 file as well; and
as the default experiment takes them, with questions and replies against float32. Wall time of whole
commands that take turns.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from lab import GGUF, ROOT, default_plan, made, output_of, program, weights_of
from llama_perplexity import CONTEXT, Lab, LlamaPerplexity
from minillm_lab.benchmark.machine import cpu_model
from minillm_lab.jobs.command import run, say
from minillm_lab.records import Prompt, read_record
from minillm_lab.runtimes import resolved

REPETITIONS = 5  # llama-bench's default
COLUMNS = (
    "llama-bench",
    "llama-perplexity",
    "lab: chunks and replies",
    "lab: as in the experiment",
)


def seconds_of(command: list[str | Path]) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    output_of(command)
    return time.perf_counter() - start


def main(arguments: argparse.Namespace) -> None:
    plan = default_plan()
    bench, perplexity = program(arguments.llama_bench), program(arguments.llama_perplexity)
    files, model = weights_of(plan, GGUF), plan.model("f16")
    prompt = read_record(made(f"{plan.results}/prompts/{model}.json"), Prompt).token_ids
    whole_text = made(f"{plan.results}/quality/texts/{model}.json")
    float32 = made(plan.reference_file("f16"))
    settings, f16 = plan.runtime_settings("f16"), files["f16"]
    threads, chunks = resolved(json.loads(settings)).threads, arguments.chunks
    text = ROOT / "workflow/minillm_lab/quality/text.txt"
    taken: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        peer = LlamaPerplexity(perplexity, folder, text, threads, f16, chunks)
        base = time.perf_counter() - start
        lab = Lab(folder, text, f16, "lab", settings, chunks)
        start = time.perf_counter()
        reference = lab.reference(f16, "compact")
        lab_base = time.perf_counter() - start
        for variant, weights in files.items():
            say(f"timing {variant}")
            taken[weights.stem] = (
                seconds_of(
                    [bench, "-m", weights, "-t", str(threads), "-p", str(len(prompt)), "-ngl", "0",
                     "-n", str(plan.experiment.generate), "-r", str(REPETITIONS)]
                ),
                peer.score(weights)[0].seconds,
                lab.score(weights, reference).seconds,
                seconds_of(
                    [sys.executable, "-m", "minillm_lab.quality.score", "--variant", variant,
                     "--model", plan.model(variant), "--weights", weights,
                     "--text", whole_text, "--reference", float32,
                     "--settings", plan.runtime_settings(variant), "--output", folder / "all.json"]
                ),
            )  # fmt: skip
    total = tuple(map(sum, zip(*taken.values(), strict=True)))
    print(
        f"{cpu_model()}, {threads} threads; llama-bench -p {len(prompt)} -n"
        f" {plan.experiment.generate} -r {REPETITIONS}, {chunks} chunks of {CONTEXT} tokens\n"
    )
    print(f"| seconds | {' | '.join(COLUMNS)} |\n" + "|---" * (1 + len(COLUMNS)) + "|")
    for file, seconds in {**taken, "together": total}.items():
        print(f"| {file} | {' | '.join(f'{s:.1f}' for s in seconds)} |")
    print(f"\nThe reference, from F16: llama-perplexity {base:.1f} s, the lab {lab_base:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-bench", required=True, help="the program to run")
    parser.add_argument("--llama-perplexity", required=True, help="the program to run")
    parser.add_argument("--chunks", type=int, default=10)
    run(main, parser)
