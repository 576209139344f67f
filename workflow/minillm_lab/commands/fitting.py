"""Leave out of a new experiment the variants that do not fit into this machine's memory."""

from dataclasses import replace
from typing import Any

import yaml

from minillm_lab.commands.reference import Chosen as Reference
from minillm_lab.commands.written import F16, Chosen
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.jobs.limits import memory_limit
from minillm_lab.models.found import Found
from minillm_lab.models.needs import REFERENCE, VARIANT, megabytes, size_of
from minillm_lab.models.remote import Repository


def settings_of(variant: str) -> tuple[str, str]:
    """The runtime and the form that a variant's settings name."""
    read = yaml.safe_load(f"{{{variant}}}")
    return read["runtime"], read.get("file") or read.get("quantization") or read["dtype"]


def fitting(chosen: Chosen) -> Chosen:
    """A model without the variants that this machine's memory does not hold.

    Where its usual reference does not fit, the finest variant that does takes its place. Where no
    variant fits, all stay.
    """
    found, there, taken = chosen.found, memory_limit(), dict[str, float]()
    for name, variant in chosen.variants.items():
        runtime, form = settings_of(variant)
        taken[name] = size_of(form, found) + VARIANT[runtime]
    if min(taken.values()) > there:
        return chosen
    asked = chosen.asked.value if chosen.asked else None
    large = {name: size for name, size in taken.items() if size > there and name != asked}
    left_out = tuple(
        f"{name}, which takes about {megabytes(size)} of memory, where there are"
        f" {megabytes(there)}; on a machine with more, this command keeps it"
        for name, size in large.items()
    )
    kept = {name: one for name, one in chosen.variants.items() if name not in large}
    smaller = chosen.asked or reference_that_fits(found, kept, there)
    forms = {settings_of(variant)[1] for variant in kept.values()}
    if forms <= {gguf.label for gguf in found.gguf}:  # else types are made from one of them
        found = replace(found, gguf=[gguf for gguf in found.gguf if gguf.label in forms])
    return Chosen(replace(found, left_out=found.left_out + left_out), kept, smaller)


def reference_that_fits(found: Found, variants: dict[str, str], there: int) -> Reference | None:
    """The finest reference that fits; None where the usual one does, or none does."""
    if not found.gguf or isinstance(found.safetensors_from, Repository):
        usual, needed = "float32", size_of("float32", found) + REFERENCE["transformers"]
    else:
        first = found.unquantized or found.gguf[0]
        usual, needed = first.label, first.bytes + REFERENCE["llama.cpp"]
    if needed <= there:
        return None
    candidates: list[tuple[float, Any, str]] = []
    for name, variant in variants.items():
        runtime, form = settings_of(variant)
        if runtime == "llama.cpp":
            candidates.append((size_of(form, found), name, form))
    if usual == "float32":
        candidates.append((size_of("F16", found), yaml.safe_load(F16), "F16"))
    candidates.sort(key=lambda one: -one[0])
    fits = [one for one in candidates if one[0] + REFERENCE["llama.cpp"] <= there]
    if not fits and (usual == "float32" or not candidates):
        return None
    _, value, form = (fits or candidates[-1:])[0]
    types = {gguf.label: gguf.header.type for gguf in found.gguf}
    itself = "" if types.get(form, form) in UNQUANTIZED else ", which is quantized itself"
    return Reference(
        value,
        f"The reference would be {usual}, which takes about {megabytes(needed)} of memory, where"
        f" there are {megabytes(there)}. Quality is the distance from"
        f" {value if isinstance(value, str) else 'F16 in llama.cpp'}{itself}.",
    )
