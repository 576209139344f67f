"""The settings of a variant that runs in OpenVINO."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from minillm_lab.experiment.settings import NoSwitch, Settings

PLAIN = "openvino-unquantized"  # the form that is not compressed
GROUP = 64  # weights that share a scale in four bits, where a config does not say


class OpenVinoVariant(Settings):
    """A variant of this kind runs a model that is converted from safetensors in OpenVINO."""

    OF_THE_FILE = frozenset({"quantization", "group"})
    runtime: Literal["openvino"] = Field(description="The runtime is OpenVINO.")
    quantization: Literal["int8", "int4_sym", "int4_asym"] | None = Field(
        None,
        description="The weights are compressed by this mode of NNCF; in four bits, the embedding"
        " and the output keep eight (docs/runtimes.md). Without it, they are not compressed.",
    )
    group: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="In four bits, this many weights of a row share a scale (NNCF's group_size);"
        f" without it, {GROUP}. It must divide the length of every row.",
    )
    precision: Literal["f32", "bf16", "auto"] = Field(
        "f32",
        description="OpenVINO computes in this type (INFERENCE_PRECISION_HINT); auto leaves it to"
        " OpenVINO, which takes bf16 where the CPU has it.",
    )
    kv_cache: Literal["f32", "f16", "bf16", "u8", "auto"] = Field(
        "f32",
        description="The cache of keys and values is held in this type (KV_CACHE_PRECISION); auto"
        " leaves it to OpenVINO.",
    )
    dynamic_quantization: Annotated[Literal[0, 32, 64, 128, "auto"], NoSwitch] = Field(
        0,
        description="Activations are rounded to eight bits in groups of this many"
        " (DYNAMIC_QUANTIZATION_GROUP_SIZE), with 0 not at all; auto leaves it to OpenVINO.",
    )

    @model_validator(mode="after")
    def can_be(self) -> "OpenVinoVariant":
        if self.group and not self.in_four_bits:
            raise ValueError("group is that of int4_sym and int4_asym; leave it out")
        if self.device == "gpu":
            raise ValueError("OpenVINO runs on the CPU here; leave device out")
        return self

    @property
    def in_four_bits(self) -> bool:
        return self.quantization in ("int4_sym", "int4_asym")

    @property
    def form(self) -> str:
        """The name of the folder that holds the converted model: ``openvino-int4_sym-64``."""
        if not self.quantization:
            return PLAIN
        group = f"-{self.group or GROUP}" if self.in_four_bits else ""
        return f"openvino-{self.quantization}{group}"
