"""What an experiment takes before anything of it is downloaded: network, disk, memory.

Downloads are counted from the source's own list of files. What is made here, and what a process
takes, are computed from the number of weights and are about right.
"""

import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from math import prod
from pathlib import Path

from minillm_lab.experiment.config import Experiment
from minillm_lab.experiment.libraries import bits_of, library_of
from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.sources import TOKENIZER_FILES
from minillm_lab.experiment.variants import AnyVariant
from minillm_lab.jobs.limits import memory_limit
from minillm_lab.models.found import Found
from minillm_lab.models.remote import Repository
from minillm_lab.result import main_type
from minillm_lab.wording import number

# Bytes of a process beside the weights, as measured with SmolLM2-135M.
REFERENCE = {"transformers": 650e6, "llama.cpp": 350e6}
VARIANT = {"transformers": 480e6, "llama.cpp": 115e6}
VARIANT |= {"mlx": 480e6, "onnx": 300e6, "openvino": 300e6}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "F32": 4, "F16": 2, "BF16": 2}
REFERENCE_STEP, IMATRIX_STEP, TURNS = "the reference", "the importance matrix", "taking turns"
TOKEN, LARGE = 2330, 1 << 16  # bytes of the reference for a scored token, of this vocabulary
CHUNKS, TEXT = 31, 31 * 512  # the lab's own evaluation text, and its tokens
PAGES, PAGE = 2.05e6, 0.13e6  # bytes of charts and reports; of a variant's results
CONVERTER = 76.6e6  # bytes of the archive that holds llama.cpp's converter
HEADER = 37  # bytes of a GGUF's header for a token of the vocabulary
# Times the bits of a type's main type, the output apart: some tensors are stored in finer ones.
# Of llama.cpp's sizes of Llama-3.1-8B (tools/quantize/README.md).
MIXED = {"Q2_K": 1.11, "Q3_K_M": 1.11, "Q3_K_L": 1.2, "Q4_K_M": 1.06, "Q5_K_M": 1.03}
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0"}
SCALED = 1.1  # times the bits of other libraries' forms


def download(found: Found) -> int:
    """Bytes that come from the hub: the files of the experiment, and those of a tokenizer."""
    files: dict[tuple[str, str], int] = {}
    if not isinstance(found.gguf_from, Path):
        files |= {(f.repository, f.path): f.bytes for gguf in found.gguf for f in gguf.files}
    if isinstance(place := found.safetensors_from, Repository):
        top = [f for f in place.files if "/" not in f.path]
        small = [f for f in top if any(fnmatch(f.path, pattern) for pattern in TOKENIZER_FILES)]
        files |= {(place.name, f.path): f.bytes for f in [*found.safetensors, *small]}
    return sum(files.values())


def weights(found: Found) -> int:
    """The number of a model's weights."""
    if found.gguf:
        return max(sum(prod(t.shape) for t in gguf.header.tensors) for gguf in found.gguf)
    return sum(file.bytes for file in found.safetensors) // found.told.bytes_per_weight


def size_of(form: str, found: Found) -> float:
    """Bytes of a form of the model: as published, else about what it takes when it is made."""
    published = {gguf.label: gguf.bytes for gguf in found.gguf}
    if form in published:
        return published[form]
    width, vocabulary = found.width_and_vocabulary
    if form in BYTES:
        header = HEADER * vocabulary if form.isupper() else 0  # as GGUF
        return BYTES[form] * weights(found) + header
    if library_of(form):  # with scales, and layers that are not quantized
        bits = bits_of(form)
        each = SCALED * bits / 8 if bits else BYTES.get(form.rpartition("-")[2], 4)
        return each * weights(found)
    main, output = bytes_in(main_type(form), width), bytes_in("Q6_K", width)
    apart = width * vocabulary  # an embedding that serves as the output is stored as that
    body = main * MIXED.get(form, 1) * (weights(found) - apart)
    return body + max(main, output) * apart + HEADER * vocabulary


def bytes_in(type_: str, width: int) -> float:
    """Bytes of a weight in a type, or in what stands for it where rows are no whole blocks."""
    from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_]]
    if block == 256 and width % block:  # as llama.cpp's quantizer falls back
        return bytes_in(FALLBACK.get(type_, "IQ4_NL"), width)
    return float(size / block)


def made(experiment: Experiment, model: str, found: Found) -> Iterator[float]:
    """Bytes of each file of a model that is made here."""
    plan = Plan(experiment, "")
    settings = [v for name, v in experiment.variants.items() if plan.model(name) == model]
    forms = {variant.form for variant in settings}
    forms -= {"safetensors", *(gguf.label for gguf in found.gguf)}
    forms |= {"F16"} if forms and not found.unquantized else set()  # the others are made from it
    for form in forms:
        yield size_of(form, found)


def made_here(experiment: Experiment, models: dict[str, Found]) -> list[float]:
    """Bytes of each file that is made here, of all models."""
    return [size for model, found in models.items() for size in made(experiment, model, found)]


def references(experiment: Experiment, models: dict[str, Found]) -> float:
    """Bytes of the references that are computed here."""
    quality, computed = experiment.quality, Plan(experiment, "").with_reference
    if not quality:
        return 0.0
    chunks = min(quality.chunks or CHUNKS, TEXT // quality.context)
    large = (models[model].width_and_vocabulary[1] > LARGE for model in computed)
    tokens = chunks * (quality.context - quality.first_scored)
    return float(sum(tokens * TOKEN * (4 / 3 if wide else 1) for wide in large))


def results(experiment: Experiment) -> float:
    """Bytes of results, charts and reports."""
    return PAGES + PAGE * len(experiment.variants)


def converted(experiment: Experiment, models: dict[str, Found]) -> bool:
    """Whether a model's GGUF is converted from safetensors, and the converter is not here yet."""
    plan = Plan(experiment, "")
    return any(
        found.safetensors
        and not found.gguf
        and any(made(experiment, model, found))
        and not Path(str(plan.models.converter(model))).exists()
        for model, found in models.items()
    )


def steps(experiment: Experiment, models: dict[str, Found]) -> Iterator[tuple[float, str]]:
    """Bytes of memory that a step takes, and which step it is."""
    plan = Plan(experiment, "")

    def held(settings: AnyVariant, model: str) -> float:
        return size_of(settings.held, models[model])

    of = {model: f" of {model}" if len(models) > 1 else "" for model in models}
    for model in plan.with_reference:
        reference = plan.computed(model)
        yield held(reference, model) + REFERENCE[reference.runtime], REFERENCE_STEP + of[model]
    for model in plan.with_imatrix:
        yield size_of("F16", models[model]) + REFERENCE["llama.cpp"], IMATRIX_STEP + of[model]
    taken = {
        name: held(variant, plan.model(name)) + VARIANT[variant.runtime]
        for name, variant in experiment.variants.items()
    }
    for name, alone in taken.items():
        yield alone, name
    for name in taken.keys() - {experiment.baseline}:
        both = taken[name] + taken[experiment.baseline]
        yield both, f"{name} and {experiment.baseline} {TURNS}"


def smaller_reference(experiment: Experiment, models: dict[str, Found], there: int) -> str | None:
    """The largest form of every model that llama.cpp runs and, as the reference, fits; or None."""
    plan, forms = Plan(experiment, ""), list[set[str]]()
    for model in plan.with_reference:
        own = [v for name, v in experiment.variants.items() if plan.model(name) == model]
        forms.append({v.form for v in own if v.runtime == "llama.cpp"})
    taken = {
        form: max(size_of(form, models[model]) for model in plan.with_reference)
        for form in set.intersection(*forms)
    }
    fits = [form for form, size in taken.items() if size + REFERENCE["llama.cpp"] <= there]
    return max(fits, key=lambda form: taken[form], default=None)


def needs(experiment: Experiment, models: dict[str, Found], more: int = 0) -> list[str]:
    """Download, disk and memory in lines, each against what there is here.

    ``models``: what the sources of each of the experiment's models offer. ``more``: bytes of
    references that are downloaded besides.
    """
    loaded = float(sum(map(download, models.values())) + more)
    kept = loaded + sum(made_here(experiment, models)) + references(experiment, models)
    kept += results(experiment)
    loaded += CONVERTER if converted(experiment, models) else 0
    free = shutil.disk_usage(Path.cwd()).free
    every, there = list(steps(experiment, models)), memory_limit()
    needed, step = max(every)
    lines = [
        f"Download: {megabytes(loaded) if loaded else 'nothing'}."
        f" Disk: about {megabytes(kept)} of {megabytes(free)} free."
        f" Memory: about {megabytes(needed)} ({step}) of {megabytes(there)}."
    ]
    if kept > free:
        lines.append("The disk is too small for that: name fewer --types, or make room.")
    large = {step.partition(" of ")[0] for size, step in every if size > there}
    pairs = {step for step in large if step.endswith(TURNS)}
    alone = large - pairs
    if {step.partition(" and ")[0] for step in pairs} - alone:
        lines.append(
            "What does not fit beside the baseline takes no turns with it: its ratios come from"
            " rounds."
        )
    ways = []
    if REFERENCE_STEP in large:
        form = smaller_reference(experiment, models, there)
        smaller = f"a smaller reference (--reference {form.lower()}) or " if form else ""
        file = "owner/name/{model}.npz" if len(models) > 1 else "owner/name/file.npz"
        ways.append(f"name {smaller}a reference made elsewhere (--reference {file})")
    if IMATRIX_STEP in large:
        ways.append("set imatrix: none in the variants that are made here")
    if alone - {REFERENCE_STEP, IMATRIX_STEP}:
        ways.append("take away variants that are too large" + (" still" if ways else ""))
    said = f"The memory is too small for that: {', and '.join(ways)}."
    return [*lines, said] if ways else lines


def megabytes(size: float) -> str:
    return f"{number(size / 1e6)} MB" if size < 1e9 else f"{number(size / 1e9)} GB"
