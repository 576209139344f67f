"""Write an experiment for models, from their names on the hub or from their files on this disk.

The experiment is whole, pinned and commented, and yours to edit: the command never changes one that
is already there.
"""

import argparse
import os
import re
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from minillm_lab.commands import forecast, reference
from minillm_lab.commands.fitting import fitting
from minillm_lab.commands.names import LONGEST, experiment_name, model_names, variant_names
from minillm_lab.commands.written import Chosen, experiment_text, one_line, scalar
from minillm_lab.experiment.config import RESERVED, load_experiment
from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.sources import NAME, QUANTIZATION_TYPES
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.models.discover import discover, spelt
from minillm_lab.models.found import Found
from minillm_lab.models.needs import made_here, needs, size_of

EXAMPLES = (
    "minillm-lab new Qwen/Qwen3-0.6B",
    "minillm-lab new Qwen/Qwen2.5-0.5B-Instruct-GGUF --types Q8_0,Q4_K_M",
    "minillm-lab new Qwen/Qwen3-0.6B Qwen/Qwen3-1.7B --types Q8_0,Q3_K_M",
    "minillm-lab new mine-Q8_0.gguf mine-Q4_K_M.gguf --name mine",
    "minillm-lab new folder-of-gguf-files",
    "minillm-lab new folder-of-safetensors --types Q6_K,Q4_K_M",
    "minillm-lab new owner/name-GGUF --types Q4_K_M --reference owner/name-GGUF/reference.npz",
)
LADDER = ("Q8_0", "Q5_K_M", "Q4_K_M")  # of a model that ships none
FP16 = "runtime: transformers, dtype: float16"


def published(found: Found) -> dict[str, str]:
    """The variants of GGUF files as published, by name; the one to compare with comes first."""
    own, names = found.unquantized or next(iter(found.gguf), None), dict[str, str]()
    if found.base_named:
        names["fp16"] = FP16
    for gguf in sorted(found.gguf, key=lambda gguf: gguf is not own):
        name = gguf.label.lower()
        name = f"file-{name}" if name in RESERVED else name
        names[name] = f"runtime: llama.cpp, file: {scalar(gguf.label)}"
    return names


def made(found: Found, types: list[str]) -> dict[str, str]:
    """The variants of unquantized weights: as they are, in llama.cpp, and of types made here."""
    first = published(found) or {
        "fp16": FP16,
        "f16": "runtime: llama.cpp, quantization: F16",
    }
    types = [type_ for type_ in types if type_.lower() not in first]
    return first | {t.lower(): f"runtime: llama.cpp, quantization: {t}" for t in types}


def variants_of(found: Found, types: list[str]) -> dict[str, str]:
    """The variants of a model: its files as published, or types that are made here."""
    wanted = [type_.upper() for type_ in types or LADDER if not found.has(type_)]
    if found.published:
        return published(found)
    if unknown := sorted({*wanted} - {*QUANTIZATION_TYPES}):
        raise LabError(
            f"no type {unknown[0]!r} can be made; there are: {', '.join(QUANTIZATION_TYPES)}"
        )
    return made(found, wanted)


def chosen_of(
    every: list[Found], types: list[str], given: str | None, experiment: str
) -> dict[str, Chosen]:
    """The experiment's models by their names, with their variants and the reference asked for."""
    names = model_names([found.sources for found in every], experiment)
    of_each = {name: variants_of(found, types) for name, found in zip(names, every, strict=True)}
    own = iter(variant_names(of_each))
    named = {name: {next(own): v for v in of.values()} for name, of in of_each.items()}
    models = {name: Chosen(found, named[name]) for name, found in zip(names, every, strict=True)}
    if given is None:
        return models
    if len(models) > 1 and not reference.is_variant(given) and "{model}" not in given:
        raise LabError(
            f"--reference {given}: one file cannot be the reference of {len(models)} models; write"
            f" {{model}} in its path for their names, which are {', '.join(models)}"
        )
    return {
        name: replace(
            one, asked=reference.chosen(given.replace("{model}", name), one.found, one.variants)
        )
        for name, one in models.items()
    }


def types_of(given: str) -> list[str]:
    """Q8_0,Q4_K_M as a list."""
    if types := [type_ for type_ in (part.strip() for part in given.split(",")) if type_]:
        return types
    raise argparse.ArgumentTypeError(f"{given!r} names no type; write Q8_0,Q4_K_M")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a repository of the hub (owner/name) with GGUF files or safetensors; GGUF files here,"
        " a folder of them, or a folder of safetensors. GGUF files of one model become its"
        " variants; every other source becomes another model",
    )
    parser.add_argument(
        "--apart",
        action="store_true",
        help="make each source a model of its own, as two fine-tunes",
    )
    parser.add_argument(
        "--types",
        type=types_of,
        default=[],
        metavar="TYPE,…",
        help="which of the published GGUF files (default: all), or which types to make of"
        f" safetensors (default: {','.join(LADDER)}); of each model",
    )
    parser.add_argument(
        "--reference",
        metavar="REFERENCE",
        help="what quality is measured against: owner/name/path/to/file.npz on the hub, a file.npz"
        " here, or a variant, where the unquantized weights do not fit; {model} stands for each"
        " model's name",
    )
    parser.add_argument("--name", help="of the experiment (default: from the sources)")


def main(arguments: argparse.Namespace) -> None:
    if not Path("workflow/minillm_lab").is_dir() or not Path("Snakefile").is_file():
        raise LabError("this folder is no lab, so nothing would run here: cd to the lab's folder")
    if "@" in urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc:  # errors name the URL
        raise LabError("HF_ENDPOINT holds a name or password; leave it out, and set HF_TOKEN")
    sources = [spelt(source) for source in arguments.source]
    name = arguments.name or experiment_name(sources)
    if not re.fullmatch(NAME, name) or len(name) > LONGEST:
        raise LabError(f"--name {name!r}: use lower-case letters, digits, '.', '_' and '-'")
    path = Path("experiments", f"{name}.yaml")
    asked = [*sources, *(["--types", ",".join(arguments.types)] if arguments.types else [])]
    asked += ["--apart"] if arguments.apart else []
    given = None if arguments.reference is None else reference.spelt(arguments.reference)
    asked += ["--reference", given] if given else []
    asked += ["--name", arguments.name] if arguments.name else []
    command = f"# {one_line(shlex.join(['minillm-lab', 'new', *asked]))}"
    if path.exists():
        way_out = f"run it with `make run EXPERIMENT={name}`, edit it, or write another with --name"
        if path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] != command:
            raise LabError(f"{path} is there already, for something else: {way_out}")
        print(f"{path} is there already, and nothing was changed: {way_out}")
        return
    try:
        types = reference.types_with(given, arguments.types)
        every = discover(sources, types, arguments.apart, reference.is_unquantized(given))
        models = chosen_of(every, types or reference.types_with(given, LADDER), given, name)
        models = {model: fitting(chosen) for model, chosen in models.items()}
    except LabError as error:  # foreign names may be in it
        raise LabError(one_line(str(error))) from error.__cause__
    text = experiment_text(models, name, command)
    experiment = load_experiment(yaml.safe_load(text), str(path))
    write_text(path, text)
    print(f"{path}: {', '.join(experiment.variants)}")
    for model, chosen in models.items():
        print(f"{model}: " * (len(models) > 1) + one_line(chosen.reference()[1]))
    if len(experiment.variants) == 1:
        print("One variant has nothing to be compared with: name more files, or add variants.")
    for left_out in (text for chosen in models.values() for text in chosen.found.left_out):
        print(f"Left out: {one_line(left_out)}")
    found = {model: chosen.found for model, chosen in models.items()}
    asked_for = [chosen.asked.bytes for chosen in models.values() if chosen.asked]
    lines = needs(experiment, found, sum(asked_for))
    with suppress(LabError):  # no yardstick could be read: the experiment runs all the same
        took = forecast.said(
            Plan(experiment, ""),
            lambda model, form: size_of(form, found[model]),
            made_here(experiment, found),
            Path("results"),
        )
        lines.insert(1, took)
    print("\n".join(lines))
    print(f"Next: make run EXPERIMENT={name}")
