"""What a source offers, and which of its GGUF files become variants."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from typing import NamedTuple

from minillm_lab.experiment.sources import BLOB, QUANTIZATION_TYPES, UNQUANTIZED
from minillm_lab.header import Header, joined
from minillm_lab.jobs.errors import LabError
from minillm_lab.models.labels import labelled, named
from minillm_lab.models.remote import File, Repository

# llama.cpp's architectures that do not write a text token by token: they embed it, or see images,
# or speak, or need an encoder's input, or fill in masked tokens.
NOT_GENERATING = {
    "bert", "clip", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3",
    "llada", "llada-moe", "llama-embed", "modern-bert", "neo-bert", "nomic-bert",
    "nomic-bert-moe", "rnd1", "t5", "t5encoder", "wavtokenizer-dec",
}  # fmt: skip
FINEST_FIRST = ("BF16", "F32", "F16")  # most models are published in BF16, of which F32 is a copy
Split = tuple[list[File], list[Header]]  # the parts of a GGUF, or itself, with their headers


@dataclass(frozen=True)
class Gguf:
    """One GGUF as it was published, under a label of its own."""

    label: str
    files: list[File]  # its parts in order, or itself
    header: Header

    @property
    def bits_per_weight(self) -> float:
        weights = sum(prod(tensor.shape) for tensor in self.header.tensors)
        return 8 * sum(tensor.bytes for tensor in self.header.tensors) / max(1, weights)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Told(NamedTuple):
    """What a config tells of a model's weights: 0 where it does not."""

    bytes_per_weight: int = 2
    width: int = 0  # weights in most rows
    vocabulary: int = 0


UNTOLD = Told()


@dataclass(frozen=True)
class Found:
    """What a source offers: GGUF files, or safetensors, or both."""

    gguf: list[Gguf]
    safetensors: list[File]
    gguf_from: Sequence[Repository] | Path = ()
    safetensors_from: Repository | Path | None = None
    told: Told = UNTOLD  # of the safetensors
    left_out: tuple[str, ...] = ()  # what lies there besides, and why it is no variant
    sources: tuple[str, ...] = ()  # as they were named
    base_named: str = ""  # the one of them that is the base model of the others
    base: str = ""  # why the base model that the card names does not serve; empty where it does

    @property
    def published(self) -> bool:
        """Whether somebody else quantized it; else its types are made here."""
        return any(gguf.header.type not in UNQUANTIZED for gguf in self.gguf)

    def has(self, type_: str) -> bool:
        """Whether one of the GGUF files has a type by its label or its header."""
        return any(
            named(gguf.label, type_) or gguf.header.type.lower() == type_.lower()
            for gguf in self.gguf
        )

    @property
    def width_and_vocabulary(self) -> tuple[int, int]:
        """Columns and rows of the embedding; 0 where nothing tells."""
        if not self.gguf:
            return self.told.width, self.told.vocabulary
        width, vocabulary, *_ = (*embedding_of(self.gguf[0].header), 0, 0)
        return width, vocabulary

    @property
    def unquantized(self) -> Gguf | None:
        """The source's own unquantized GGUF; None where it has none."""
        by_type = {gguf.header.type: gguf for gguf in reversed(self.gguf)}
        return next((by_type[type_] for type_ in FINEST_FIRST if type_ in by_type), None)


def usable(source: str, splits: Sequence[Split]) -> tuple[list[Gguf], tuple[str, ...]]:
    """The GGUF files that generate text, the finest first; and what is left out, with the reason.

    Raises LabError where parts or files do not belong together.
    """
    found, left_out = list[Gguf](), list[str]()
    labels = labelled([files for files, _ in splits])
    for (label, files), (_, headers) in zip(labels.items(), splits, strict=True):
        first = headers[0]
        architecture = first.architecture
        if first.kind not in (None, "model") or architecture in NOT_GENERATING:
            what = first.kind if first.kind not in (None, "model") else architecture
            left_out.append(f"{files[0].path} ({what}: generates no text by itself)")
            continue
        name = f"{files[0].repository or source}/{files[0].path}"
        header = joined(headers, name) if first.parts > 1 or len(files) > 1 else first
        taken = {*labels, *(gguf.label for gguf in found)}
        if header.type in UNQUANTIZED and header.type not in taken:
            label = header.type  # types are made from such a file, whatever its name
        elif BLOB.fullmatch(label):  # its name tells nothing
            tries = (f"{header.type}-{n}" if n > 1 else header.type for n in count(1))
            label = next(one for one in tries if one not in taken)
        elif label in QUANTIZATION_TYPES and header.type not in (label, "unknown"):
            label = f"named-{label}"  # a name of a type promises it
        found.append(Gguf(label, files, header))
    models = {model_of(gguf.header): gguf.files[0].name for gguf in found}
    if len(models) > 1:
        raise LabError(
            f"{source}: its files are of different models ({', '.join(models.values())});"
            " name those of one, or each by itself"
        )
    found.sort(key=lambda gguf: (-gguf.bits_per_weight, gguf.label))
    return found, tuple(left_out)


def model_of(header: Header) -> tuple[str | None, tuple[int, ...], int]:
    """What a model's quantizations have in common: architecture, vocabulary and width, depth."""
    names = [tensor.name for tensor in header.tensors]
    blocks = {name.split(".")[1] for name in names if name.startswith("blk.")}
    return header.architecture, embedding_of(header), len(blocks)


def embedding_of(header: Header) -> tuple[int, ...]:
    """The shape of the embedding: its width, then the vocabulary."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    return shapes.get("token_embd.weight", ())


def found_in(
    source: str,
    gguf: list[Gguf],
    types: list[str],
    place: Sequence[Repository] | Path,
    left_out: tuple[str, ...],
    compared: bool,
) -> Found:
    """The GGUF files asked for, by label or else by type; all of them where nothing is asked for.

    An unquantized one is among them whatever is asked for if the others are ``compared`` with it.
    Where there are only such, one is enough: every type that is no file can be made of it.
    """
    own = Found(gguf, []).unquantized
    whole = all(one.header.type in UNQUANTIZED for one in gguf)
    kept = own if compared or whole else None
    asked = list[Gguf]()
    for type_ in types:
        by_label = [one for one in gguf if named(one.label, type_)]
        meant = by_label or [one for one in gguf if one.header.type.lower() == type_.lower()]
        if not meant and not whole:
            there = ", ".join(one.label for one in gguf)
            raise LabError(f"{source}: no GGUF file {type_!r}; there are: {there}")
        asked += meant
    if not types:
        asked = [one for one in gguf if one.header.type not in UNQUANTIZED]
    if not types or whole:
        why = f"{kept.label} is the unquantized one" if kept else "the reference is another"
        left_out += tuple(
            f"{one.label} ({why}; --types {one.label} adds it)"
            for one in gguf
            if own and one not in (kept, *asked)
        )
    found = [one for one in gguf if one is kept or one in asked]
    return Found(found, [], place, left_out=left_out)
