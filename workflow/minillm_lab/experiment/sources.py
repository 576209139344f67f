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
    model_validator,
)

from minillm_lab.experiment.libraries import library_of
from minillm_lab.header import read_header
from minillm_lab.jobs.errors import LabError

NAME = r"[a-z0-9][a-z0-9._-]*"
LONGEST = 2**31 - 1  # tokens; llama.cpp counts them in 32 bits
LABEL = r"[A-Za-z0-9][A-Za-z0-9_-]*"  # without a dot: a file's name is <model>.<label>.json
PART = re.compile(r"(?P<stem>[^/]+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")  # llama.cpp's
BLOB = re.compile(r"sha256-([0-9a-f]{64})")  # the name of a file in Ollama's store
UNQUANTIZED = ("F32", "BF16", "F16")
QuantizationType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "IQ3_M", "IQ3_S", "Q3_K_S", "IQ3_XS",
    "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "IQ1_M", "TQ1_0",
    "IQ1_S",
]  # fmt: skip
QUANTIZATION_TYPES: tuple[str, ...] = get_args(QuantizationType)  # the finest first
MATRIX = r"(\+imatrix(-[0-9a-f]{8})?)?"
RECIPE = MATRIX + r"(\+(tensors|size)-[0-9a-f]{8})?"  # behind the type made here
IMATRIX_IGNORED = (*UNQUANTIZED, "Q8_0", "TQ2_0", "TQ1_0")
TYPE_IN_FILE_NAME = re.compile(
    rf"(?:^|[-._/])({'|'.join(sorted(QUANTIZATION_TYPES, key=len, reverse=True))})\.gguf$",
    re.IGNORECASE,
)


def type_of(form: str) -> str:
    """The type of a file that is made here, by the name of its form: ``Q4_K_M+imatrix``."""
    return form.partition("+")[0]


def recipe_of(form: str) -> tuple[str, str]:
    """What else a form's name says: ``+imatrix…``, and ``+tensors-…`` or ``+size-…``, or empty."""
    found = re.fullmatch(RECIPE, form.removeprefix(type_of(form)))
    return (found[1] or "", found[3] or "") if found else ("", "")


def is_no_form(label: str) -> str:
    """A label that is no other form of a model."""
    if label in ("safetensors", "recipe") or library_of(label):
        raise ValueError(f"the label {label!r} is taken; choose another")
    return label


Name = Annotated[str, Field(pattern=rf"^{NAME}$", max_length=80)]
Label = Annotated[str, Field(pattern=rf"^{LABEL}$", max_length=80), AfterValidator(is_no_form)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


def stays_below(path: str) -> str:
    """A relative path that does not leave its folder."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} must be a relative path without '.' or '..'")
    return path


RelativePath = Annotated[str, Field(pattern=r"^[^\\\s{}]+$"), AfterValidator(stays_below)]
FilePath = Annotated[str, Field(pattern=r"^[^\\{}\x00-\x1f]+$"), AfterValidator(stays_below)]
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


class Part(Strict):
    """A part is one of the files that a publisher split a GGUF into."""

    file: FilePath = Field(description="The part has this path in the repository or folder.")
    sha256: Sha256 | None = Field(None, description="The part must have this SHA-256 checksum.")


class GgufFile(Strict):
    """An entry names one GGUF as it was published: a file, or all its parts in order."""

    file: FilePath | None = Field(
        None, description="The file has this path in the repository or folder."
    )
    sha256: Sha256 | None = Field(None, description="The file must have this SHA-256 checksum.")
    parts: list[Part] | None = Field(
        None,
        min_length=2,
        max_length=1000,
        description="The GGUF is split into these parts, from …-00001-of-… on.",
    )
    repository: Repository | None = Field(
        None,
        description="The file is in this repository of the hub, if not in that of the other files.",
    )
    revision: Revision | None = Field(
        None, description="The file is taken from this commit, tag or branch of its repository."
    )

    @model_validator(mode="after")
    def is_one_gguf(self) -> "GgufFile":
        if (self.repository is None) != (self.revision is None):
            raise ValueError("name both the file's repository and its revision, or neither")
        if (self.file is None) == (self.parts is None):
            raise ValueError("name either a file or its parts")
        if self.parts and self.sha256:
            raise ValueError("each of the parts has a sha256 of its own; leave this one out")
        names = [Path(part.file).name for part in self.files]
        blob = self.file is not None and BLOB.fullmatch(names[0])
        if odd := [name for name in names if not name.endswith(".gguf") and not blob]:
            raise ValueError(f"{odd[0]!r} does not end in .gguf")
        if self.parts:
            stem = re.sub(r"-\d{5}-of-\d{5}\.gguf$", "", names[0])
            for number, name in enumerate(names, 1):
                if name != (wanted := f"{stem}-{number:05}-of-{len(names):05}.gguf"):
                    raise ValueError(f"part {number} of {len(names)} is {name!r}, not {wanted!r}")
        return self

    @property
    def files(self) -> list[Part]:
        """What there is to download: the parts, or the file itself as the only one."""
        return self.parts or [Part(file=self.file or "", sha256=self.sha256)]

    @property
    def place(self) -> str:
        """Its name below models/<model>/source: the file's path, or that of a folder of parts.

        Folders are part of the name, since files of several publishers have one name.
        """
        path = "/".join(filter(None, [self.repository, self.files[0].file])).replace("/", "--")
        found = PART.search(path)
        if self.parts and found:
            return f"{found['stem']}.split"
        return path if path.endswith(".gguf") else f"{path}.gguf"

    @property
    def names(self) -> list[str]:
        """The names of its files there."""
        return [Path(part.file).name for part in self.parts] if self.parts else [self.place]


def places_differ(files: dict[str, GgufFile]) -> dict[str, GgufFile]:
    """GGUF files of which no two have one name."""
    names = [entry.place for entry in files.values()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two files would be named {sorted(twice)[0]!r} here; list one of them")
    return files


GgufFiles = Annotated[
    dict[Label, GgufFile], Field(min_length=1, max_length=1000), AfterValidator(places_differ)
]


class HubGguf(Strict):
    """A publisher may ship GGUF files, under types of llama.cpp or names of the publisher's."""

    repository: Repository = Field(
        description="The GGUF files are in this repository of the hub, written as owner/name."
    )
    revision: Revision = Field(
        description="The files are taken from this commit, tag or branch; only a commit never"
        " moves."
    )
    files: GgufFiles = Field(
        description="Each quantization type that the publisher ships names its file. A variant may"
        " also name a file by its key here, which may then be any word without a dot."
    )


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
    files: GgufFiles | None = Field(
        None,
        description="The folder at path holds these GGUF files, as hub.gguf.files names those of a"
        " repository.",
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
        if self.files and (self.path is None or self.path.endswith(".gguf")):
            raise ValueError("files are those of a folder; name it under path")
        if self.files and any(file.repository for file in self.files.values()):
            raise ValueError("files of a folder are in no repository; leave repository out")
        if self.files and self.quantization:
            raise ValueError("each of the files has a type of its own; leave quantization out")
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
        return self.path is not None and not self.path.endswith(".gguf") and not self.files

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
    def listed_gguf(self) -> dict[str, GgufFile]:
        """The GGUF files that the entry lists, by their labels; a single one is not listed."""
        return (self.hub.gguf.files if self.hub and self.hub.gguf else self.files) or {}

    @property
    def shipped_gguf(self) -> dict[str, str]:
        """The GGUF files of the source: quantization type or label to name below source/."""
        if listed := self.listed_gguf:
            return {label: entry.place for label, entry in listed.items()}
        file = self.package.file if self.package else self.path
        if file is None or not file.endswith(".gguf"):
            return {}
        found = TYPE_IN_FILE_NAME.search(file)
        type_ = self.quantization or (found.group(1).upper() if found else "unknown")
        return {type_: Path(file).name}

    def of_its_header(self) -> "Model":
        """The entry with the quantization type that a GGUF file on this disk has by its header.

        Raises ValueError where the entry names another type. A file that cannot be read changes
        nothing: the job that fetches it says what is wrong.
        """
        if self.path is None or self.files or not self.shipped_gguf:
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
