"""An experiment as YAML with comments, from what its sources offer."""

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from minillm_lab.commands.reference import Chosen as Reference
from minillm_lab.models.found import Found, Gguf
from minillm_lab.models.remote import File, Repository
from minillm_lab.wording import visible

FLOAT32 = "{runtime: transformers, dtype: float32}"
F16 = "{runtime: llama.cpp, quantization: F16}"
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


@dataclass(frozen=True)
class Chosen:
    """A model of an experiment: what its sources offer, and its variants' settings by name."""

    found: Found
    variants: dict[str, str]
    asked: Reference | None = None  # the reference that --reference names

    def reference(self) -> tuple[str, str]:
        """The reference that quality is measured against, as YAML, and why it is that one."""
        if self.asked:
            return flow(self.asked[0]), self.asked[1]
        found, first = self.found, scalar(next(iter(self.variants)))
        if not found.gguf:
            return FLOAT32, "Quality is the distance from the unquantized weights in float32."
        if isinstance(found.safetensors_from, Repository):
            base, who = found.safetensors_from.name, "the base model that the card names"
            return FLOAT32, f"Quality is the distance from {base}, {who}, in float32."
        if own := found.unquantized:
            where = "source" if isinstance(found.gguf_from, Path) else "repository"
            return (
                first,
                f"Quality is the distance from {own.label}, the {where}'s own unquantized file.",
            )
        missing = " ".join(["None of the GGUF files is unquantized.", found.base]).strip()
        return first, (
            f"{missing} Quality is the distance from {first}, its finest file, which is quantized"
            " itself."
        )


def experiment_text(models: dict[str, Chosen], name: str, command: str) -> str:
    """An experiment of these models below ``command``; its baseline is the first variant."""
    several = len(models) > 1
    references = {model: chosen.reference() for model, chosen in models.items()}
    differ = len({reference for reference, _ in references.values()}) > 1
    left_out = [text for chosen in models.values() for text in chosen.found.left_out]
    lines = [
        command,
        "# wrote this experiment. Edit it as you like: the command never changes it again.",
        f"#   make run EXPERIMENT={name}",
        f"#   snakemake --cores 1 --configfile experiments/{name}.yaml",
        "# config.yaml shows more keys; workflow/schemas/config.schema.json describes every one.",
        *(line for text in left_out for line in comment(f"Left out: {text}")),
        *([] if several else [f"model: {scalar(next(iter(models)))}"]),
        "models:",
    ]
    for model, chosen in models.items():
        lines += [f"  {scalar(model)}:", *source_lines(chosen.found)]
        reference, why = references[model]
        lines += [*comment(why, "    "), f"    reference: {reference}"] if differ else []
    lines += [
        "",
        "# Each variant is one row of the table, and its result is in the results' folder.",
        "variants:",
    ]
    for model, chosen in models.items():
        of = f"model: {scalar(model)}, " if several else ""
        rows = {scalar(variant): settings for variant, settings in chosen.variants.items()}
        lines += [f"  {variant}: {{{of}{settings}}}" for variant, settings in rows.items()]
        if chosen.found.gguf and chosen.found.safetensors and not chosen.found.base_named:
            row = f"{model}-f16: {{{of}{F16[1:]}" if several else f"f16: {F16}"
            lines.append(f"  # {row}  # made here of the base model")
    first = next(iter(next(iter(models.values())).variants))
    lines += [
        "",
        "# Ratios compare each variant with this one.",
        f"baseline: {scalar(first)}",
        *MEASURED.splitlines(),
        "",
    ]
    reference, _ = next(iter(references.values()))
    if differ:
        lines.append("# Each model has a reference of its own, above.")
    else:
        reasons = dict.fromkeys(why for _, why in references.values())
        lines += [line for why in reasons for line in comment(why)]
        if reference == FLOAT32:
            lines.append(f"# If that does not fit into memory: {F16}")
    lines += [
        "quality:",
        "  chunks: 10 # of 512 tokens each, spread evenly over the lab's own text",
    ]
    lines += [] if differ else [f"  reference: {reference}"]
    lines += ["", f"results: results/{name}", f"readme: experiments/{name}.md"]
    return "\n".join(lines) + "\n"


def source_lines(found: Found) -> list[str]:
    """The model's entry: where its files come from, pinned."""
    lines, place, gguf = [], found.safetensors_from, found.gguf_from
    if isinstance(place, Path):
        return [f"    path: {scalar(str(place))}"]
    if isinstance(gguf, Path):
        files = file_lines(found.gguf, "      ", {})
        return [f"    path: {scalar(str(gguf))}", "    files:", *files]
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
        about += ["made with an importance matrix"] if gguf.header.imatrix is not None else []
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


def flow(value: Any) -> str:
    """A value as YAML writes it behind a key, on several lines where it is long."""
    if isinstance(value, str):
        return scalar(value)
    written = yaml.safe_dump(
        value,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=20,  # so that each key has a line
    )
    return written.strip().replace("\n", "\n    ")


def scalar(text: str) -> str:
    """A text as YAML writes it on one line."""
    written = yaml.safe_dump(text, allow_unicode=True, width=10**6)
    return written.removesuffix("\n").removesuffix("\n...")


def comment(text: str, indent: str = "") -> list[str]:
    """Foreign text as lines of a comment."""
    width = 98 - len(indent)
    lines = textwrap.wrap(one_line(text), width, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in lines]


def one_line(text: str) -> str:
    """Foreign text for a comment: on one line, and without what a terminal would obey."""
    return visible(re.sub(r"\s+", " ", text).strip())
