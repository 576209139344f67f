"""Factors of a speed-up: the steps from the baseline to a variant, one change at a time."""

from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.result import Result


def same_conditions(result: Result) -> tuple[str, str, int, str]:
    """Conditions that must be equal for the effect of one change to be known."""
    cache = result.runtime["settings"].get("kv_cache", "").lower()
    quantized = cache if "q" in cache else ""
    threads: int = result.runtime["threads"]
    return result.model.name, result.machine["fingerprint"], threads, quantized


def steps(name: str, baseline: str, results: dict[str, Result]) -> list[tuple[str, str, str]]:
    """(change, start, end) of each step from the baseline to a variant, one change at a time.

    The steps go through variants of the experiment that differ only in runtime, device or
    quantization. A step without such a variant is merged with the next, and its name says so.
    """
    start_from, ours = results[baseline], results[name]
    if same_conditions(start_from) != same_conditions(ours):
        return []  # they differ in model, machine or threads, which is none of these changes
    if start_from.output.flaw or ours.output.flaw:
        return []

    def key(result: Result) -> tuple[str, str, str]:
        model = result.model  # files of one type may hold different weights
        name = f"{model.type_name} {model.tensors}"
        plain = model.quantization in ("safetensors", *UNQUANTIZED)
        return result.runtime["name"], result.runtime["backend"], "unquantized" if plain else name

    comparable = {
        key(r): n
        for n, r in reversed(results.items())
        if same_conditions(r) == same_conditions(ours) and not r.output.flaw
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
