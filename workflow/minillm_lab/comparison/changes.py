"""What one setting changed in quality: pairs of variants that differ in nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minillm_lab.comparison.closeness import same_text
from minillm_lab.experiment.sources import IMATRIX_IGNORED, UNQUANTIZED
from minillm_lab.quality.intervals import ratio
from minillm_lab.quality.long_contexts import NOISE
from minillm_lab.records import QualityMetric
from minillm_lab.result import Result
from minillm_lab.wording import number

IMATRIX, MIXTURE, TYPE = "importance matrix", "mixture", "type"
RECIPE = "recipe"
NEAR = 0.1  # of a size; what is farther off is of another
CACHE = "cache of keys/values"
COMPARED = (IMATRIX, MIXTURE, CACHE, "flash attention")  # what may change quality
USUAL = ("none", "f16")  # a pair goes from these


@dataclass(frozen=True)
class Change:
    """A setting that two variants differ in, and the divergence of both from the reference."""

    setting: str
    start: str  # the name of a variant
    end: str
    before: str  # the setting's value
    after: str
    ratio: QualityMetric  # of the mean divergences, end over start, paired by chunk


def told(result: Result) -> dict[str, str]:
    """Everything that may tell two variants apart, by name."""
    model, runtime = result.model, result.runtime
    type_ = model.label or model.quantization
    mixture = ", ".join(f"{p}: {one}" for p, one in model.tensors.items()) or "none"
    settings, llama = runtime["settings"], runtime["name"] == "llama.cpp"
    matrix = model.imatrix
    return {
        "model": model.name,
        TYPE: f"{type_} of {model.size} bytes" if model.recipe else type_,
        IMATRIX: "none" if matrix is None else str(sorted(matrix.items())),
        MIXTURE: "none" if model.recipe else mixture,
        "machine": result.machine["fingerprint"],
        "runtime": runtime["name"],
        "backend": runtime["backend"],
        "dtype": str(settings.get("dtype")),
        "threads": str(runtime["threads"]),
        "threads of prompts": str(settings.get("threads_batch")),
        "load mode": str(settings.get("load_mode")),
        "micro-batch": str("micro_batch" in settings.get("chosen", ()) and settings["micro_batch"]),
        CACHE: str(settings.get("kv_cache")) if llama else "",
        "flash attention": str(settings.get("flash_attention")) if llama else "",
    }


def changes(results: dict[str, Result]) -> Iterator[Change]:
    """The pairs, by setting; the other values of a setting are each held against the usual one."""
    every = {name: told(result) for name, result in results.items()}
    for setting in COMPARED:
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, found in every.items():
            rest = tuple(value for key, value in found.items() if key != setting)
            groups.setdefault(rest, []).append(name)
        for names in groups.values():
            start, *others = sorted(names, key=lambda name: every[name][setting] not in USUAL)
            for end in others:
                before, after = every[start][setting], every[end][setting]
                over = divergence_over(results[end], results[start])
                if before != after and over:
                    if setting == IMATRIX:
                        before, after = (text_of(results[name]) for name in (start, end))
                    yield Change(setting, start, end, before, after, over)
    yield from recipes(results, every)


def recipes(results: dict[str, Result], every: dict[str, dict[str, str]]) -> Iterator[Change]:
    """Each recipe against the stock type whose file is nearest to it in size.

    ``every``: what tells the variants apart. Both are made by the same matrix.
    """
    for name, result in results.items():
        if not result.model.recipe:
            continue
        stock = [
            other
            for other, found in every.items()
            if {key for key in found if found[key] != every[name][key]} - ignored(results[other])
            == {TYPE}
            and not results[other].model.recipe
            and results[other].model.quantization not in UNQUANTIZED
            and abs(results[other].model.size - result.model.size) <= NEAR * result.model.size
        ]
        size = result.model.size
        nearest = min(stock, key=lambda n: abs(results[n].model.size - size), default=None)
        if nearest and (over := divergence_over(result, results[nearest])):
            model = results[nearest].model
            sizes = [f"{number(m.size / 1e6)} MB" for m in (model, result.model)]
            before, after = f"{model.label or model.quantization}, {sizes[0]}", f"own, {sizes[1]}"
            yield Change(RECIPE, nearest, name, before, after, over)


def ignored(result: Result) -> set[str]:
    """The settings that change nothing in a file of a result's type."""
    return {IMATRIX} if result.model.quantization in IMATRIX_IGNORED else set()


def text_of(result: Result) -> str:
    """The text of the importance matrix that a file was made with, as its header names it."""
    matrix = result.model.imatrix
    return "none" if matrix is None else str(matrix.get("dataset") or matrix.get("file"))


def divergence_over(result: Result, other: Result) -> QualityMetric | None:
    """The mean divergence of one result over another's, paired by chunk.

    None if it is unknown, or if the other's may be float32 arithmetic alone.
    """
    ours, theirs = (r.quality_by_chunk.get("kld_mean", []) for r in (result, other))
    if (
        not same_text(result, other)
        or len(ours) != len(theirs)
        or not sum(theirs) > NOISE * len(theirs)
    ):
        return None
    return ratio("1", np.array(ours)[:, None], np.array(theirs)[:, None])
