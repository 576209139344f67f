"""The source of a model: a package, a hub repository, a file or folder on this disk."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from minillm_lab.header import read_header
from minillm_lab.jobs.errors import LabError

NAME = r"[a-z0-9][a-z0-9._-]*"
LONGEST = 2**31 - 1  # tokens; llama.cpp counts them in 32 bits
UNQUANTIZED = ("F32", "BF16", "F16")
QuantizationType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_XS", "IQ4_NL", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
]  # fmt: skip
QUANTIZATION_TYPES: tuple[str, ...] = get_args(QuantizationType)
TYPE_IN_FILE_NAME = re.compile(
    rf"(?:^|[-._/])({'|'.join(sorted(QUANTIZATION_TYPES, key=len, reverse=True))})\.gguf$",
    re.IGNORECASE,
)

Name = Annotated[str, Field(pattern=rf"^{NAME}$", max_length=80)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


def stays_below(path: str) -> str:
    """A relative path that does not leave its folder."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} must be a relative path without '.' or '..'")
    return path


RelativePath = Annotated[str, Field(pattern=r"^[^\\\s{}]+$"), AfterValidator(stays_below)]
AnyPath = Annotated[str, Field(pattern=r"^[^{}\x00-\x1f]+$")]  # braces are Snakemake's
AbsolutePath = Annotated[str, Field(pattern=r"^/[^{}\x00-\x1f]*$")]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$"), AfterValidator(stays_below)]
Revision = Annotated[str, Field(pattern=r"^[\w./-]+$"), AfterValidator(stays_below)]

TOKENIZER_FILES = (
    "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt",
)  # fmt: skip
SAFETENSORS_FILES = ("*.safetensors", *TOKENIZER_FILES)


class Strict(BaseModel):
    """A mapping in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Package(Strict):
    """A package is a wheel that ships weights; it is downloaded, but never installed or run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The package index lists the package under this name.",
    )
    version: str = Field(
        pattern=r"^[0-9][A-Za-z0-9.!+]*$", description="Exactly this version is downloaded."
    )
    file: RelativePath = Field(description="The GGUF file has this path inside the wheel.")
    sha256: Sha256 = Field(description="The GGUF file must have this SHA-256 checksum.")


class HubFile(Strict):
    """An entry names one file of a repository on the hub."""

    file: RelativePath = Field(description="The file has this path in the repository.")
    sha256: Sha256 | None = Field(None, description="The file must have this SHA-256 checksum.")


class HubGguf(Strict):
    """A publisher may ship GGUF files, one for each quantization type."""

    repository: Repository = Field(
        description="The GGUF files are in this repository of the hub, written as owner/name."
    )
    revision: Revision = Field(
        description="The files are taken from this commit, tag or branch; only a commit never"
        " moves."
    )
    files: dict[QuantizationType, HubFile] = Field(
        min_length=1, description="Each quantization type that the publisher ships names its file."
    )

    @field_validator("files")
    @classmethod
    def names_differ(cls, files: dict[str, HubFile]) -> dict[str, HubFile]:
        names = [Path(entry.file).name for entry in files.values()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two files are named {sorted(twice)[0]!r}; list one of them")
        return files


class Hub(Strict):
    """The Hugging Face hub ships a model as safetensors, as GGUF files, or as both."""

    repository: Repository | None = Field(
        None,
        description="The safetensors are in this repository of the hub, written as owner/name.",
    )
    revision: Revision | None = Field(
        None,
        description="The safetensors are taken from this commit, tag or branch; only a commit never"
        " moves.",
    )
    sha256: dict[RelativePath, Sha256] = Field(
        {}, description="Each file named here must have its SHA-256 checksum."
    )
    gguf: HubGguf | None = Field(
        None, description="These GGUF files are used as shipped instead of being made here."
    )

    @model_validator(mode="after")
    def names_something(self) -> "Hub":
        if not self.repository and not self.gguf:
            raise ValueError("name a repository of safetensors, or gguf files, or both")
        if self.repository and not self.revision:
            raise ValueError("revision is missing; name a commit, tag or branch of the repository")
        return self


class Model(Strict):
    """A model comes from exactly one of package, hub and path."""

    package: Package | None = Field(
        None, description="The model comes from a wheel on the package index."
    )
    hub: Hub | None = Field(None, description="The model comes from the Hugging Face hub.")
    path: AnyPath | None = Field(
        None,
        description="The model is the GGUF file or the folder of safetensors at this path of this"
        " machine.",
    )
    quantization: QuantizationType | Literal["unknown"] | None = Field(
        None,
        description="The GGUF file has this quantization type. It is needed only where the file is"
        " not on this disk yet and its name does not end in the type.",
    )
    dither: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Each weight unpacked from a quantized file is moved at random by at most half"
        " of"
        " this share of its rounding step (docs/quality.md).",
    )

    @model_validator(mode="after")
    def has_one_source(self) -> "Model":
        if sum(source is not None for source in (self.package, self.hub, self.path)) != 1:
            raise ValueError("name exactly one of package, hub and path")
        return self

    @property
    def kind(self) -> str:
        """``package``, ``hub`` or ``path``."""
        return "package" if self.package else "hub" if self.hub else "path"

    @property
    def ships_safetensors(self) -> bool:
        """Whether the source itself holds safetensors."""
        if self.hub:
            return self.hub.repository is not None
        return self.path is not None and not self.path.endswith(".gguf")

    @property
    def unpacked(self) -> bool:
        """Whether the source ships only quantized weights, from which F16 is unpacked."""
        return not self.ships_safetensors and not set(self.shipped_gguf) & set(UNQUANTIZED)

    @property
    def moved(self) -> str:
        """How far dither moves each unpacked weight, in words; empty without dither."""
        if not self.dither:
            return ""
        return f"moved at random by up to ± {50 * self.dither:g} % of its rounding step"

    @property
    def shipped_gguf(self) -> dict[str, str]:
        """The GGUF files of the source: quantization type to path in the source."""
        if self.hub:
            files = self.hub.gguf.files if self.hub.gguf else {}
            return {type_: entry.file for type_, entry in files.items()}
        file = self.package.file if self.package else self.path
        if file is None or not file.endswith(".gguf"):
            return {}
        found = TYPE_IN_FILE_NAME.search(file)
        return {self.quantization or (found.group(1).upper() if found else "unknown"): file}

    def of_its_header(self) -> "Model":
        """The entry with the quantization type that a GGUF file on this disk has by its header.

        Raises ValueError where the entry names another type. A file that cannot be read changes
        nothing: the job that fetches it says what is wrong.
        """
        if self.path is None or not self.shipped_gguf:
            return self
        path = Path(self.path)
        try:
            about = path.stat()
            found = type_on_disk(path, about.st_mtime_ns, about.st_size)
        except (OSError, LabError):
            return self
        if self.quantization not in (None, found):
            raise ValueError(f"{path} is {found}, not {self.quantization}; leave quantization out")
        return self.model_copy(update={"quantization": found})


@cache
def type_on_disk(path: Path, mtime_ns: int, size: int) -> str:
    """The quantization type in a GGUF file's header; ``unknown`` where no variant may name it."""
    found = read_header(path).type
    return found if found in QUANTIZATION_TYPES else "unknown"
