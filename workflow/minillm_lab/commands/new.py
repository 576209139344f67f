"""Write an experiment for a model, from its name on the hub or from its files on this disk.

The experiment is whole, pinned and commented, and yours to edit: the command never changes one that
is already there.
"""

import argparse
import os
import re
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from minillm_lab.commands import reference
from minillm_lab.experiment.config import RESERVED, load_experiment
from minillm_lab.experiment.sources import NAME, QUANTIZATION_TYPES
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.models.discover import discover
from minillm_lab.models.found import Found, Gguf
from minillm_lab.models.needs import needs
from minillm_lab.models.remote import File, Repository
from minillm_lab.wording import visible

EXAMPLES = (
    "minillm-lab new Qwen/Qwen3-0.6B",
    "minillm-lab new Qwen/Qwen2.5-0.5B-Instruct-GGUF --types Q8_0,Q4_K_M",
    "minillm-lab new mine-Q8_0.gguf mine-Q4_K_M.gguf --name mine",
    "minillm-lab new folder-of-gguf-files",
    "minillm-lab new folder-of-safetensors --types Q6_K,Q4_K_M",
    "minillm-lab new owner/name-GGUF --types Q4_K_M --reference owner/name-GGUF/reference.npz",
)
WHOLE = {"runtime": "transformers", "dtype": "float32"}
LADDER = ("Q8_0", "Q5_K_M", "Q4_K_M")  # of a model that ships none
MEASURED = """
# Every variant answers this prompt, put through the model's own chat template.
prompt: >-
  Explain the main causes of inflation in India and the tools that the Reserve Bank of India uses to
  control it, as in an answer for the UPSC civil services examination.
generate: 80 # exactly this many new tokens; the end of the text is ignored
context: 1024 # this many tokens for every variant
threads: auto # as many as the physical cores that the process may use

# In a trial a variant takes turns with the baseline: speeds and ratios. A round is a fresh process:
# load times, memory, the answer. A higher number runs only what is new.
trials: 6
rounds: 2
repetitions: 1
warmups: 1
"""


def experiment_text(
    found: Found, name: str, variants: dict[str, str], command: str, chosen: reference.Chosen
) -> str:
    """An experiment as YAML with comments, below ``command``; ``variants`` are settings by name."""
    model = model_of(name)
    head = [
        command,
        "# wrote this experiment. Edit it as you like: the command never changes it again.",
        f"#   make run EXPERIMENT={name}",
        f"#   snakemake --cores 1 --configfile experiments/{name}.yaml",
        "# config.yaml shows more keys; workflow/schemas/config.schema.json describes every one.",
        *(line for text in found.left_out for line in comment(f"Left out: {text}")),
        f"model: {scalar(model)}",
        "models:",
        f"  {scalar(model)}:",
        *source_lines(found),
        "",
        "# Each variant is one row of the table, and its result is in the results' folder.",
        "variants:",
    ]
    whole = chosen[0] == WHOLE
    told = yaml.safe_dump(
        {"reference": chosen[0]},
        default_flow_style=None if whole else False,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
    )
    tail = [
        "",
        "# Ratios compare each variant with this one.",
        f"baseline: {scalar(next(iter(variants)))}",
        *MEASURED.splitlines(),
        "",
        *comment(chosen[1]),
        *(["# If that does not fit into memory: {runtime: llama.cpp, quantization: F16}"] * whole),
        "quality:",
        "  chunks: 10 # of 512 tokens each, spread evenly over the lab's own text",
        *(f"  {line}" for line in told.splitlines()),
        "",
        f"results: results/{name}",
        f"readme: experiments/{name}.md",
    ]
    if found.gguf and found.safetensors:
        tail = [
            "  # f16: {runtime: llama.cpp, quantization: F16}  # made here of the base model",
            *tail,
        ]
    rows = [f"  {scalar(variant)}: {{{settings}}}" for variant, settings in variants.items()]
    return "\n".join([*head, *rows, *tail]) + "\n"


def source_lines(found: Found) -> list[str]:
    """The model's entry: where its files come from, pinned."""
    lines, place, gguf = [], found.safetensors_from, found.gguf_from
    if isinstance(place, Path):
        return [f"    path: {scalar(shown(place))}"]
    if isinstance(gguf, Path):
        files = file_lines(found.gguf, "      ", {})
        return [f"    path: {scalar(shown(gguf))}", "    files:", *files]
    lines.append("    hub:")
    if isinstance(place, Repository):
        lines += [f"      repository: {place.name}", f"      revision: {scalar(place.commit)}"]
        sums = [file for file in found.safetensors if file.sha256]
        lines += ["      sha256:"] if sums else []
        for file in sums:
            pin = f"{scalar(file.path)}: {scalar(file.sha256 or '')}"
            lines.append(f"        {pin} # {file.bytes:,} bytes")
    if gguf:
        first, *others = gguf
        commits = {other.name: other.commit for other in others}
        lines += [
            "      gguf:",
            f"        repository: {first.name}",
            f"        revision: {scalar(first.commit)}",
            "        files:",
            *file_lines(found.gguf, "          ", commits),
        ]
    return lines


def file_lines(files: Iterable[Gguf], indent: str, commits: dict[str, str]) -> list[str]:
    """GGUF files as published, each with what its header says.

    ``commits`` are those of repositories that a file has to name.
    """
    lines = []
    for gguf in files:
        type_ = gguf.header.type
        about = [f"{gguf.bytes:,} bytes", f"{gguf.bits_per_weight:.2f} bits per weight"]
        about += [f"{type_} by its header"] if type_ != gguf.label else []
        about += ["made with an importance matrix"] if gguf.header.by_importance else []
        lines.append(f"{indent}{scalar(gguf.label)}: # {', '.join(about)}")
        if commit := commits.get(repository := gguf.files[0].repository):
            lines += [f"{indent}  repository: {repository}"]
            lines += [f"{indent}  revision: {scalar(commit)}"]
        if len(gguf.files) == 1:
            lines += [f"{indent}  {line}" for line in pinned(gguf.files[0])]
            continue
        lines.append(f"{indent}  parts:")
        for file in gguf.files:
            first, *more = pinned(file)
            lines += [f"{indent}    - {first}", *(f"{indent}      {line}" for line in more)]
    return lines


def pinned(file: File) -> list[str]:
    """A file's path, and its checksum where it is known."""
    return [
        f"file: {scalar(file.path)}",
        *([f"sha256: {scalar(file.sha256)}"] if file.sha256 else []),
    ]


def published(found: Found) -> dict[str, str]:
    """The variants of GGUF files as published, by name; the one to compare with comes first."""
    own, names = found.unquantized or next(iter(found.gguf), None), dict[str, str]()
    for gguf in sorted(found.gguf, key=lambda gguf: gguf is not own):
        name = gguf.label.lower()
        name = f"file-{name}" if name in RESERVED else name
        names[name] = f"runtime: llama.cpp, file: {scalar(gguf.label)}"
    return names


def made(found: Found, types: list[str]) -> dict[str, str]:
    """The variants of unquantized weights: as they are, in llama.cpp, and of types made here.

    Raises LabError where nobody can make one.
    """
    first = published(found) or {
        "fp16": "runtime: transformers, dtype: float16",
        "f16": "runtime: llama.cpp, quantization: F16",
    }
    types = [type_.upper() for type_ in types if not found.has(type_)]
    if unknown := sorted({*types} - {*QUANTIZATION_TYPES}):
        raise LabError(
            f"no type {unknown[0]!r} can be made; there are: {', '.join(QUANTIZATION_TYPES)}"
        )
    types = [type_ for type_ in types if type_.lower() not in first]
    return first | {t.lower(): f"runtime: llama.cpp, quantization: {t}" for t in types}


def reference_of(found: Found, variants: dict[str, str]) -> reference.Chosen:
    """The reference that quality is measured against, and why it is that one."""
    own, first = found.unquantized, next(iter(variants))
    if own:
        where = "folder" if isinstance(found.gguf_from, Path) else "repository"
        return (
            first,
            f"Quality is the distance from {own.label}, the {where}'s own unquantized file.",
        )
    if not found.gguf:
        return WHOLE, "Quality is the distance from the unquantized weights in float32."
    if isinstance(found.safetensors_from, Repository):
        base = found.safetensors_from.name
        return WHOLE, (
            f"Quality is the distance from {base}, the base model that the card names, in float32."
        )
    missing = " ".join(["The source has no unquantized file.", found.base]).strip()
    return first, (
        f"{missing} Quality is the distance from {first}, its finest file, which is quantized"
        " itself."
    )


def model_of(name: str) -> str:
    """The model's name in an experiment of a name."""
    return re.sub(r"[-_.]gguf$", "", name)


def scalar(text: str) -> str:
    """A text as YAML writes it on one line."""
    written = yaml.safe_dump(text, allow_unicode=True, width=10**6)
    return written.removesuffix("\n").removesuffix("\n...")


def comment(text: str) -> list[str]:
    """Foreign text as lines of a comment."""
    return [f"# {line}" for line in textwrap.wrap(one_line(text), 98, break_on_hyphens=False)]


def one_line(text: str) -> str:
    """Foreign text for a comment: on one line, and without what a terminal would obey."""
    return visible(re.sub(r"\s+", " ", text).strip())


def shown(path: Path) -> str:
    """A path as the workflow reads it: from the working folder, or from the root."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def name_of(sources: list[str]) -> str:
    """A name for the experiment: the repository's, the folder's or the file's."""
    try:
        here = Path(sources[0]).exists()
    except OSError:  # longer than a name may be
        here = False
    first = Path(sources[0]).absolute() if here else Path(sources[0])
    own = first.parent.name if here and len(sources) > 1 else first.name
    plain = re.sub(r"-\d{5}-of-\d{5}$", "", own.removesuffix(".gguf"))
    name = re.sub(r"[^a-z0-9._-]+", "-", plain.lower()).strip("-._")[:80]
    return name or "model"


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
        " a folder of them, or a folder of safetensors",
    )
    parser.add_argument(
        "--types",
        type=types_of,
        default=[],
        metavar="TYPE,…",
        help="which of the published GGUF files (default: all), or which types to make of"
        f" safetensors (default: {','.join(LADDER)})",
    )
    parser.add_argument(
        "--reference",
        metavar="REFERENCE",
        help="what quality is measured against: owner/name/path/to/file.npz on the hub, a file.npz"
        " here, or a variant, where the unquantized weights do not fit",
    )
    parser.add_argument("--name", help="of the experiment (default: the source's)")


def main(arguments: argparse.Namespace) -> None:
    if "@" in urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc:  # errors name the URL
        raise LabError("HF_ENDPOINT holds a name or password; leave it out, and set HF_TOKEN")
    sources = [source.rstrip("/") or source for source in arguments.source]
    name = arguments.name or name_of(sources)
    if not re.fullmatch(NAME, name) or len(name) > 80:
        raise LabError(f"--name {name!r}: use lower-case letters, digits, '.', '_' and '-'")
    path = Path("experiments", f"{name}.yaml")
    asked = [*sources, *(["--types", ",".join(arguments.types)] if arguments.types else [])]
    asked += ["--reference", arguments.reference] if arguments.reference else []
    asked += ["--name", arguments.name] if arguments.name else []
    command = f"# {one_line(shlex.join(['minillm-lab', 'new', *asked]))}"
    if path.exists():
        way_out = f"run it with `make run EXPERIMENT={name}`, edit it, or write another with --name"
        if path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] != command:
            raise LabError(f"{path} is there already, for something else: {way_out}")
        print(f"{path} is there already, and nothing was changed: {way_out}")
        return
    given = arguments.reference
    try:
        types = reference.types_with(given, arguments.types)
        found = discover(sources, types, reference.is_unquantized(given))
        variants = (
            published(found)
            if found.published
            else made(found, types or reference.types_with(given, LADDER))
        )
        chosen = reference_of(found, variants)
        if given:
            chosen = reference.chosen(given, [model_of(name)], found, variants)
    except LabError as error:  # foreign names may be in it
        raise LabError(one_line(str(error))) from error.__cause__
    text = experiment_text(found, name, variants, command, chosen)
    experiment = load_experiment(yaml.safe_load(text), str(path))
    write_text(path, text)
    print(f"{path}: {', '.join(variants)}")
    print(one_line(chosen[1]))
    if len(variants) == 1:
        print("One variant has nothing to be compared with: name more files, or add variants.")
    for left_out in found.left_out:
        print(f"Left out: {one_line(left_out)}")
    for line in needs(experiment, found):
        print(line)
    print(f"Next: make run EXPERIMENT={name}")
