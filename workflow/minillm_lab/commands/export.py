"""Export results for others: a model card's table, llama-bench's lines, or one small file.

model-card is Markdown for the page of a publisher of model files. llama-bench is JSON lines with
the fields of ``llama-bench -o jsonl``, one line per test of llama.cpp's variants; a field that the
lab does not know is null. results is the published file that ``minillm-lab diff`` reads.
"""

import argparse
import json
from collections.abc import Iterator
from html import escape
from pathlib import PurePath
from statistics import fmean, stdev
from typing import Any

from tabulate import tabulate

from minillm_lab.commands import folder
from minillm_lab.comparison.published import publish
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.experiment.libraries import library_of
from minillm_lab.jobs.command import say
from minillm_lab.jobs.errors import LabError
from minillm_lab.recipe import Recipe
from minillm_lab.records import TOKENS_AT_DEPTH
from minillm_lab.report import quality
from minillm_lab.report.legend import (
    by_imatrix,
    described,
    mixtures,
    most_frequent,
    recipes,
    warned,
)
from minillm_lab.report.table import chosen_settings
from minillm_lab.result import Metric, Result, depths, quantized_in
from minillm_lab.wording import as_code, inert, number, visible

UNKNOWN = (  # fields of llama-bench that a result of the lab does not hold
    "build_number", "cpu_mask", "cpu_strict", "poll", "n_cpu_moe", "split_mode", "main_gpu",
    "no_kv_offload", "devices", "tensor_split", "tensor_buft_overrides", "lazy_mode", "embeddings",
    "no_op_offload", "no_host", "repack", "fit_target", "fit_min_ctx",
)  # fmt: skip
EXAMPLES = (
    "minillm-lab export --format model-card",
    "minillm-lab export --format results > mine.json",
    "minillm-lab export --format recipe --variant small > recipe.txt",
    "minillm-lab export --format llama-bench --results results/qwen2.5-0.5b-instruct",
)
FLASH_ATTENTION = {"disabled": 0, "off": 0, "enabled": 1, "on": 1}


def model_card(results: dict[str, Result], comparison: Comparison) -> str:
    """A table of one machine's model files, and how they were measured, as Markdown."""
    header = ["File", "Size, MB", "Bits per weight"]
    header += ["KL divergence ↓, nats", "Same top token ↑, %", "Perplexity ↓, × the reference's"]
    header += ["Prefill ↑, t/s", "Decode ↑, t/s", "Memory ↓, MB"]
    first = next(iter(results.values()))
    m = first.machine
    used = dict(item for r in results.values() for item in r.runtime["version"].items())
    models = dict.fromkeys(inert(r.model.name) for r in results.values())
    several = len(models) > 1
    notes = [
        f"Measured on {inert(m['cpu'])}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB,"
        f" {inert(m['os'])}; {', '.join(f'{inert(n)} {inert(v)}' for n, v in used.items())};"
        f" prompt {first.protocol['prompt_tokens']} tokens,"
        f" {first.protocol['generated_tokens']} generated, {first.runtime['threads']} threads.",
        "Medians, with 95 % intervals where they are in brackets; memory is the process's most."
        " KL divergence, same top token and perplexity are taken against"
        f" {compared_with(results)}.",
        f"Command: {as_code(comparison.command)}, on"
        f" {inert(max(r.measured_at for r in results.values())[:10])},"
        " with minillm-lab.",
    ]
    if len(states := comparison.states.get(m["fingerprint"], [])) > 1:
        notes.append(
            f"Speeds are of one state of the machine, {most_frequent(states[0])}:"
            f" {described(states[0])}."
        )
    notes += [*by_imatrix(results), *mixtures(results), *recipes(results)]
    notes += quality.legend(results)
    for text, names in warned(results).items():
        files = dict.fromkeys(as_code(file_of(results[name], several)) for name in names)
        notes.append(f"Warning, {', '.join(files)}: {inert(text)}")
    rows = [card_row(result, several) for result in results.values()]
    table = tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)
    listed = "\n".join(f"- {note.removeprefix('- ')}" for note in notes)
    parts = [f"### {', '.join(models)}", table, listed, *recipe_cards(results)]
    return "\n\n".join(filter(None, parts))


def recipe_cards(results: dict[str, Result]) -> Iterator[str]:
    """The lines of each file that was made by a recipe, as a section that opens."""
    files: dict[str, tuple[list[str], Result]] = {}
    for name, result in results.items():
        if result.model.recipe:
            files.setdefault(result.model.files[0].sha256, ([], result))[0].append(name)
    for names, result in files.values():
        assert result.model.recipe
        lines, size = lines_of(result.model.recipe), number(result.model.size / 1e6)
        head = f"Recipe of {', '.join(names)} ({size} MB), for llama-quantize"
        fence = "`" * (3 + lines.count("`"))
        yield (
            f"<details><summary>{escape(visible(head))}</summary>\n\n"
            f"{fence}text\n{lines}\n{fence}\n\n</details>"
        )


def lines_of(recipe: Recipe) -> str:
    """A recipe as ``llama-quantize --tensor-type-file`` reads it."""
    pairs = recipe.tensors.items()
    return "\n".join(visible(f"{pattern}={type_.lower()}") for pattern, type_ in pairs)


def compared_with(results: dict[str, Result]) -> str:
    """What quality was measured against, in words."""
    quantized = {quantized_in(r.reference_files) for r in results.values()}
    if names := ", ".join(as_code(name) for name in sorted(filter(None, quantized))):
        return f"{names}, whose weights are quantized themselves"
    return "the unquantized weights"


def file_of(result: Result, of_several: bool = False) -> str:
    """A variant's file, runtime and settings of its own; for safetensors, the folder's name.

    A GGUF in parts goes by its first.

    If the results are ``of_several`` models, the model's name comes first.
    """
    files = result.model.files
    path, by_library = PurePath(files[0].path), library_of(result.model.quantization)
    file = path.parent.name if by_library else path.name
    ran = ", ".join([file, result.runtime["name"], *chosen_settings(result)])
    whole = len(files) == 1 or result.model.format == "gguf" or by_library
    named = ran if whole else path.parent.name
    return f"{result.model.name}: {named}" if of_several else named


def card_row(result: Result, of_several: bool) -> list[str]:
    measured = result.quality or {}
    return [
        as_code(file_of(result, of_several)),
        number(result.model.size / 1e6),
        f"{result.model.bits_per_weight:.2f}",
        quality.cell(measured.get("kld_mean"), 1, 4),
        quality.cell(measured.get("same_top"), 100, 1),
        quality.cell(measured.get("perplexity_ratio"), 1, 3),
        cell(result.metrics.get("prefill_tokens_per_second"), 1),
        cell(result.metrics.get("decode_tokens_per_second"), 1),
        cell(result.metrics.get("memory_peak_bytes"), 1e-6),
    ]


def cell(measured: Metric | None, scale: float) -> str:
    """A median, with its interval if its digits differ; – if it was not measured."""
    if measured is None or measured.value is None:
        return "–"
    text = number(scale * measured.value)
    ends = [number(scale * end) for end in measured.ci95 or ()]
    return f"{text} ({'–'.join(ends)})" if set(ends) - {text} else text


def llama_bench(results: dict[str, Result]) -> Iterator[dict[str, Any]]:
    """llama-bench's rows: each is a test of prefill or decode at a depth of context."""
    for result in results.values():
        if result.runtime["name"] != "llama.cpp":
            continue
        prompt = result.protocol["prompt_tokens"]
        tests = [
            ("prefill_tokens_per_second", prompt, 0, 0),
            ("decode_tokens_per_second", 0, result.protocol["generated_tokens"] - 1, prompt),
        ]
        for depth in depths(result):
            steps = min(TOKENS_AT_DEPTH, depth)
            tests.append((f"prefill_tokens_per_second_at_{depth}", depth, 0, 0))
            tests.append((f"decode_tokens_per_second_at_{depth}", 0, steps, depth))
        for metric, n_prompt, n_gen, n_depth in tests:
            speeds = [speed for round_ in result.metrics[metric].samples for speed in round_]
            if speeds:
                yield llama_bench_row(result, speeds, n_prompt, n_gen, n_depth)


def llama_bench_row(
    result: Result, speeds: list[float], n_prompt: int, n_gen: int, n_depth: int
) -> dict[str, Any]:
    """One test's row; ``speeds`` are those of every repetition of every round, in tokens/s."""
    model, runtime, settings = result.model, result.runtime, result.runtime["settings"]
    nanoseconds = [round(1e9 * (n_prompt + n_gen) / speed) for speed in speeds]
    of_keys, _, of_values = settings.get("kv_cache", "").lower().partition("/")
    mode = settings.get("load_mode")
    version = " ".join(f"{name} {number_}" for name, number_ in runtime["version"].items())
    return dict.fromkeys(UNKNOWN) | {
        "build_commit": version,  # the build as far as the lab knows it
        "cpu_info": result.machine["cpu"],
        "gpu_info": "" if runtime["backend"] == "CPU" else runtime["device"],
        "backends": runtime["backend"],
        "model_filename": model.files[0].path,
        "model_type": f"{model.name} {model.type_name}",
        "model_size": round(model.bits_per_weight * model.parameters / 8),
        "model_n_params": model.parameters,
        "n_batch": settings.get("batch"),
        "n_ubatch": settings.get("micro_batch"),
        "n_threads": settings.get("threads_batch", runtime["threads"])
        if n_prompt
        else runtime["threads"],
        "type_k": of_keys or None,
        "type_v": of_values or of_keys or None,
        "n_gpu_layers": settings.get("gpu_layers"),
        "load_mode": mode,
        "use_mmap": None if mode is None else mode == "mmap",  # older llama-bench's load_mode
        "flash_attn": FLASH_ATTENTION.get(settings.get("flash_attention")),
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": n_depth,
        "test_time": result.measured_at.replace("+00:00", "Z"),
        "avg_ns": round(fmean(nanoseconds)),
        "stddev_ns": round(stdev(nanoseconds)) if len(speeds) > 1 else 0,
        "avg_ts": fmean(speeds),
        "stddev_ts": stdev(speeds) if len(speeds) > 1 else 0.0,
        "samples_ns": nanoseconds,
        "samples_ts": speeds,
    }


def recipe_text(results: dict[str, Result], variant: str | None) -> str:
    """A recipe's lines for llama-quantize; how it takes them goes to the terminal."""
    found = {name: recipe for name, r in results.items() if (recipe := r.model.recipe)}
    if not found:
        raise LabError(
            "no variant with a result is a recipe; docs/recipes.md says how to ask for one"
        )
    if variant not in found and (variant or len(found) > 1):
        missing = f"{variant!r} is no recipe, or has no result"
        said = missing if variant else "there are several recipes"
        raise LabError(f"{said}; name one by --variant: {', '.join(found)}")
    name = variant or next(iter(found))
    recipe, matrix = found[name], results[name].model.imatrix
    option = "--imatrix imatrix.gguf " if matrix is not None else ""
    say(
        f"llama-quantize {option}--tensor-type-file THESE_LINES UNQUANTIZED.gguf out.gguf"
        f" {visible(recipe.type)}"
        f"  # {recipe.bytes:,} bytes here"
    )
    return lines_of(recipe)


def text_of(
    comparison: Comparison, format_: str, asked: str | None = None, variant: str | None = None
) -> str:
    """The export in one of the formats.

    ``asked`` is a machine's fingerprint, ``variant`` the one whose recipe is exported.
    """
    if format_ == "results":
        return json.dumps(publish(comparison).model_dump(mode="json"), ensure_ascii=False)
    results = folder.of_one_machine(comparison.results, asked)
    if format_ == "model-card":
        return model_card(results, comparison)
    if format_ == "recipe":
        return recipe_text(results, variant)
    rows = [json.dumps(row, allow_nan=False) for row in llama_bench(results)]
    if not rows:
        raise LabError(
            "no variant ran in llama.cpp, so llama-bench has no lines; choose model-card"
        )
    return "\n".join(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    formats = ("model-card", "llama-bench", "results", "recipe")
    parser.add_argument("--format", choices=formats, required=True)
    parser.add_argument("--variant", help="whose recipe; needed where there are several")
    folder.add_arguments(parser)


def main(arguments: argparse.Namespace) -> None:
    comparison = folder.read_comparison(arguments.results)
    print(text_of(comparison, arguments.format, arguments.machine, arguments.variant))
