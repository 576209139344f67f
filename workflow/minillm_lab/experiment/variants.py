"""The settings of a variant, by its runtime: how its weights are quantized and computed with."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zlib import crc32

from pydantic import BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from minillm_lab.experiment.libraries import Packed, library_of
from minillm_lab.experiment.mixtures import TENSOR_TYPES, Mixture
from minillm_lab.experiment.onnx import OnnxVariant
from minillm_lab.experiment.openvino import OpenVinoVariant
from minillm_lab.experiment.recipes import TYPES, FileSize, OfVariant, TokenTime, Types
from minillm_lab.experiment.settings import Settings, Threads
from minillm_lab.experiment.sources import (
    IMATRIX_IGNORED,
    LONGEST,
    UNQUANTIZED,
    AnyPath,
    Label,
    Model,
    QuantizationType,
    Strict,
)


class TransformersVariant(Settings):
    """A variant of this kind runs safetensors in PyTorch through Transformers."""

    OF_THE_FILE = frozenset({"quantization"})
    runtime: Literal["transformers"] = Field(description="The runtime is Transformers.")
    quantization: Packed | None = Field(
        None,
        description="The weights of linear layers are quantized by this method of bitsandbytes or"
        " torchao (docs/runtimes.md); without it, they are not quantized.",
    )
    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16",
        description="The weights are held and computed in this type; with a quantization, whatever"
        " it leaves unquantized and what is computed, and then float32 is the default.",
    )

    @model_validator(mode="before")
    @classmethod
    def computes_in_float32(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("quantization"):
            return {"dtype": "float32", **given}
        return given

    @property
    def form(self) -> str:
        return self.quantization or "safetensors"

    @property
    def held(self) -> str:
        return self.quantization or self.dtype

    @property
    def engine(self) -> str:
        return library_of(self.quantization or "") or self.runtime


KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class KvCache(Strict):
    """The cache of keys and values may hold the two in different types."""

    k: KvType = Field("f16", description="The cache holds keys in this type.")
    v: KvType = Field("f16", description="The cache holds values in this type.")


KvCaches = Annotated[
    Annotated[KvType, Tag("a name")] | Annotated[KvCache, Tag("of each")],
    Discriminator(lambda given: "a name" if isinstance(given, str) else "of each"),
]


def switched(given: object) -> object:
    """YAML reads the words on and off as true and false."""
    return {True: "on", False: "off"}[given] if isinstance(given, bool) else given


class LlamaCppVariant(Settings):
    """A variant of this kind runs a GGUF file in llama.cpp through llama-cpp-python."""

    OF_THE_FILE = frozenset(
        {"file", "imatrix", "tensors", "size", "bits_per_weight", "time", "types"}
    )
    runtime: Literal["llama.cpp"] = Field(description="The runtime is llama.cpp.")
    quantization: Literal[QuantizationType, "recipe"] | None = Field(
        None,
        description="The weights are stored in this quantization type, spelled as llama.cpp does;"
        " with recipe, in the types of tensors that lose least at a size (docs/recipes.md).",
    )
    file: Label | None = Field(
        None,
        description="In place of quantization: the variant runs this entry of the model's files as"
        " it was published, whatever its type.",
    )
    imatrix: AnyPath = Field(
        "own",
        description="A type that is made here is made with this importance matrix: own, which the"
        " lab makes from its calibration text; the GGUF file at this path; one made from any other"
        " file at this path, a text; or none.",
    )
    tensors: Mixture = Field(
        {},
        description="In a type that is made here, each tensor is stored in the type at the first of"
        " these patterns that is found in its name; a pattern is a regular expression.",
    )
    size: FileSize | None = Field(
        None,
        description="The file of a recipe takes at most as many bytes as this says, such as 105MB,"
        " or as the file of another variant.",
    )
    bits_per_weight: float | None = Field(
        None,
        ge=1,
        le=32,
        description="In place of size: the file of a recipe takes at most this many bits for each"
        " of the model's weights.",
    )
    time: TokenTime | None = Field(
        None,
        description="The file of a recipe decodes a token within this time on this machine, such as"
        " 20ms; or it decodes and reads a prompt at least as fast as the file of another variant.",
    )
    types: Types | None = Field(
        None,
        description="A recipe chooses from these types of tensors; without it, from the lab's own"
        " list (docs/recipes.md).",
    )
    gpu_layers: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="This many layers are offered to the GPU where device is gpu; without it, all.",
    )
    flash_attention: Annotated[Literal["auto", "on", "off"], BeforeValidator(switched)] = Field(
        "auto",
        description="Flash attention is on, off, or left to llama.cpp's own choice (auto).",
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        description="At most this many tokens of a prompt are computed at once, which the context"
        " must have room for; without it, llama.cpp's own number: 512, or a smaller context.",
    )
    threads_batch: Threads | None = Field(
        None,
        description="Prompts are computed with this many threads, and threads counts those of"
        " decoding alone; without it, or with auto, prompts take as many as decoding.",
    )
    mmap: bool | None = Field(
        None,
        description="With true the file is mapped into memory, with false it is read into memory of"
        " the process; without it, llama.cpp chooses, and maps it where the device allows.",
    )
    kv_cache: KvCaches = Field(
        "f16",
        description="The cache of keys and values is held in this type, spelled as llama.cpp does;"
        " a mapping gives k and v types of their own.",
    )

    _usual_threads: int | str = PrivateAttr("auto")

    @model_validator(mode="after")
    def names_its_weights(self) -> "LlamaCppVariant":
        if (self.quantization is None) == (self.file is None):
            raise ValueError("name either a quantization or a file of the model")
        sizes = sum(given is not None for given in (self.size, self.bits_per_weight))
        if self.quantization == "recipe":
            if sizes > 1 or not (sizes or self.time):
                raise ValueError(
                    "a recipe takes a size, bits_per_weight or a time, and not the first two"
                    " together"
                )
            if self.time:
                self.can_be_timed()
            if self.tensors:
                raise ValueError("a recipe chooses the types of tensors itself; leave tensors out")
        elif sizes or self.time or self.types:
            raise ValueError(
                "size, bits_per_weight, time and types are those of a recipe; write"
                " quantization: recipe"
            )
        v = self.kv_cache if isinstance(self.kv_cache, str) else self.kv_cache.v
        if "q" in v and self.flash_attention == "off":
            raise ValueError(
                f"a cache of values in {v} needs flash attention; leave flash_attention out"
            )
        return self

    def can_be_timed(self) -> None:
        """Raise ValueError if a recipe's time would be that of other settings than these."""
        if self.device != "cpu":
            raise ValueError("time is measured on the CPU; leave time out, or device")
        if self.node:
            raise ValueError(
                "time is measured on whichever node makes the recipe; leave time out, or node"
            )
        for key in ("flash_attention", "micro_batch", "threads_batch", "kv_cache"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"time is measured as llama.cpp runs without {key}; leave time out, or {key}"
                )

    @property
    def form(self) -> str:
        return self.quantization or self.file or ""  # the config was checked: one of them

    @property
    def ignores_imatrix(self) -> bool:
        """Whether no matrix changes any tensor of the file."""
        return {self.quantization, *self.tensors.values()} <= {*IMATRIX_IGNORED}

    @property
    def recipe(self) -> str:
        if self.file:
            return ""
        of = "" if self.imatrix == "own" else f"-{crc32(self.imatrix.encode()):08x}"
        matrix = "" if self.imatrix == "none" or self.ignores_imatrix else f"+imatrix{of}"
        if self.quantization == "recipe":
            return matrix + f"+size-{crc32(self.bounds.encode()):08x}"
        mixture = json.dumps([*self.tensors.items()])  # their order matters
        return matrix + (f"+tensors-{crc32(mixture.encode()):08x}" if self.tensors else "")

    @property
    def threads_timed(self) -> int | str:
        """The threads that a recipe's time is measured with; auto until the experiment is known."""
        return self.threads or self._usual_threads

    def usual_threads(self, threads: int | str) -> None:
        self._usual_threads = threads

    @property
    def chosen_from(self) -> list[str]:
        """The types that a recipe chooses from, in one order, so that one search serves it."""
        return sorted({*(self.types or TYPES)}, key=TENSOR_TYPES.index)

    @property
    def bounds(self) -> str:
        """What a recipe's file depends on besides the model and the matrix, as JSON."""
        size, time = (
            {"of": one.form} if isinstance(one, OfVariant) else one
            for one in (self.size, self.time)
        )
        timed = [time, self.threads_timed] if time else []
        return json.dumps([size, self.bits_per_weight, self.chosen_from, *timed])


class MlxVariant(Settings):
    """A variant of this kind runs a model in MLX through mlx-lm (docs/runtimes.md)."""

    OF_THE_FILE = frozenset({"bits", "group"})
    runtime: Literal["mlx"] = Field(description="The runtime is MLX.")
    bits: Literal[2, 3, 4, 5, 6, 8] | None = Field(
        None, description="The weights are stored in so many bits; without it, they are in dtype."
    )
    group: Literal[32, 64, 128] | None = Field(
        None, description="So many weights of a row share a scale and an offset; without it, 64."
    )
    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="Scales are stored in this type, and everything is computed in it."
    )

    @model_validator(mode="after")
    def can_be(self) -> "MlxVariant":
        if self.group and not self.bits:
            raise ValueError("group is that of quantized weights; name bits, or leave it out")
        return self

    @property
    def form(self) -> str:
        if not self.bits:
            return f"mlx-{self.dtype}"
        return f"mlx-b{self.bits}-g{self.group or 64}-{self.dtype}"


AnyVariant = TransformersVariant | LlamaCppVariant | MlxVariant | OpenVinoVariant | OnnxVariant


def form_in(settings: Settings, model: Model) -> str:
    """The form of a model that a variant's runtime reads: a published one as it is, or one made."""
    form = settings.form
    return form if form in model.shipped_gguf else form + settings.recipe


def fits_context(place: str, settings: AnyVariant, context: int) -> None:
    """Raise ValueError if a variant asks for a micro-batch that its context cannot hold."""
    asked = getattr(settings, "micro_batch", None)
    if asked and asked > (room := settings.context or context):
        raise ValueError(
            f"{place}.micro_batch: {asked} tokens are more than the context of {room} holds;"
            " lower it, or raise 'context'"
        )


def can_have_file(place: str, settings: AnyVariant, model: Model) -> None:
    """Raise ValueError if a variant's file is not listed, or cannot be made as it asks."""
    if not isinstance(settings, LlamaCppVariant):
        return
    if settings.file is not None and settings.file not in model.listed_gguf:
        listed = ", ".join(model.listed_gguf) or "none"
        raise ValueError(
            f"{place}.file: the model lists no file {settings.file!r}; files: {listed}"
        )
    made_here = settings.quantization and settings.quantization not in model.shipped_gguf
    if settings.tensors and not made_here:
        raise ValueError(
            f"{place}.tensors: the file is taken as it was published; leave tensors out, or name a"
            " quantization that is made here"
        )
    if settings.tensors and settings.quantization in UNQUANTIZED:
        raise ValueError(
            f"{place}.tensors: llama.cpp stores all weights of a file of {settings.quantization}"
            " alike; name a quantized type, or leave tensors out"
        )
    ignored = settings.ignores_imatrix
    if ignored and settings.imatrix not in ("own", "none"):
        raise ValueError(
            f"{place}.imatrix: no matrix changes a file of {settings.quantization}; leave it out"
        )
    if settings.imatrix != "own" and not made_here and not ignored:
        raise ValueError(
            f"{place}.imatrix: the file is taken as it was published, with a matrix or without;"
            " leave imatrix out"
        )


Variant = Annotated[AnyVariant, Discriminator("runtime")]
