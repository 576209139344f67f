"""Factors of a speed-up: the steps from the baseline to a variant, one change at a time."""

from minillm_lab.experiment.libraries import is_plain, library_of
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.result import Result

SETTINGS = {  # as a config names them: as a result does
    "flash_attention": "flash_attention",
    "micro_batch": "micro_batch",
    "mmap": "load_mode",
    "precision": "precision",
    "kv_cache": "kv_cache",
    "dynamic_quantization": "dynamic_quantization",
}


def layers_on_gpu(result: Result) -> int | None:
    """The layers that a GPU computes, where it computes only some."""
    settings = result.runtime["settings"]
    offloaded: int = settings.get("gpu_layers") or 0
    layers = settings.get("layers", 0)  # without the output, which counts as one more there
    return offloaded if 0 < offloaded <= layers else None


def conditions(result: Result) -> tuple[str, str, int, int, str]:
    """Conditions that must be equal for the effect of one change to be known."""
    settings = result.runtime["settings"]
    cache = settings.get("kv_cache", "").lower()
    quantized = cache if "q" in cache else ""
    threads: int = result.runtime["threads"]
    of_prompts = settings.get("threads_batch", threads)
    return result.model.name, result.machine["fingerprint"], threads, of_prompts, quantized


def same_conditions(one: Result, other: Result) -> bool:
    """Whether two results' conditions are equal, and their settings equal or the runtime's own.

    What a runtime chooses itself belongs to the runtime and its device. Of a model that a GPU
    computes in part, it is not known what its other layers cost.
    """
    if conditions(one) != conditions(other) or layers_on_gpu(one) or layers_on_gpu(other):
        return False
    ours, theirs = one.runtime["settings"], other.runtime["settings"]
    chosen = {*ours.get("chosen", ()), *theirs.get("chosen", ())}
    return all(ours.get(SETTINGS[key]) == theirs.get(SETTINGS[key]) for key in chosen)


def computes_alike(one: Result, other: Result) -> bool:
    """Whether one result can stand between another and the baseline: PyTorch's type is the same."""
    types = [r.runtime["settings"].get("dtype") for r in (one, other)]
    return None in types or types[0] == types[1] or not library_of(other.model.quantization)


def steps(name: str, baseline: str, results: dict[str, Result]) -> list[tuple[str, str, str]]:
    """(change, start, end) of each step from the baseline to a variant, one change at a time.

    The steps go through variants of the experiment that differ only in runtime, device or
    quantization. A step without such a variant is merged with the next, and its name says so.
    """
    start_from, ours = results[baseline], results[name]
    if not same_conditions(start_from, ours):
        return []  # they differ in model, machine or a setting, which is none of these changes
    if start_from.output.flaw or ours.output.flaw:
        return []

    def key(result: Result) -> tuple[str, str, str]:
        model = result.model  # files of one type may hold different weights
        name = f"{model.type_name} {model.tensors}"
        plain = model.quantization in ("safetensors", *UNQUANTIZED) or is_plain(model.quantization)
        return result.runtime["name"], result.runtime["backend"], "unquantized" if plain else name

    comparable = {
        key(r): n
        for n, r in reversed(results.items())
        if all(same_conditions(r, side) for side in (start_from, ours))
        and not r.output.flaw
        and computes_alike(r, ours)
    }
    comparable |= {key(start_from): baseline, key(ours): name}
    start, end = key(start_from), key(ours)
    found, changes, at = [], [], start
    for i, change in enumerate(("runtime", "device", "quantization")):
        here = end[: i + 1] + start[i + 1 :]
        if here[i] != start[i]:
            changes.append(change)
        if not changes or here not in comparable:
            continue
        found.append((" and ".join(changes), comparable[at], comparable[here]))
        at, changes = here, []
    return found
