"""The settings of a variant that runs in ONNX Runtime GenAI."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from minillm_lab.experiment.settings import NoSwitch, Settings

MIXED = {  # what methods of int4 store in 8 bits
    "k_quant_last": "last_matmul:int8",
    "k_quant_mixed": "last_matmul:int8,mixed_layers:int8",
}
OF_QUANTIZED = ("algo_config", "block_size", "accuracy_level")


class OnnxVariant(Settings):
    """A variant of this kind runs what ONNX Runtime GenAI's model builder makes, on the CPU."""

    OF_THE_FILE = frozenset({"quantization", *OF_QUANTIZED})
    runtime: Literal["onnx"] = Field(description="The runtime is ONNX Runtime GenAI.")
    quantization: Literal["int8", "int4"] | None = Field(
        None,
        description="The weights of matrix products are stored in this type; without it, in"
        " float32.",
    )
    algo_config: Literal["default", "rtn", "k_quant", "k_quant_last", "k_quant_mixed"] | None = (
        Field(
            None,
            description="The model builder chooses quantized values by this method of its own"
            " (docs/runtimes.md); without it, int8 by default and int4 by k_quant_mixed.",
        )
    )
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(
        None, description="So many weights share a scale; without it, 32."
    )
    accuracy_level: Annotated[Literal[1, 4] | None, NoSwitch] = Field(
        None,
        description="With 4, the model builder's own choice, activations are rounded to 8 bits in"
        " products with quantized weights; with 1 they stay float32.",
    )

    @model_validator(mode="after")
    def asks_for_what_there_is(self) -> "OnnxVariant":
        given = [key for key in OF_QUANTIZED if getattr(self, key) is not None]
        if given and not self.quantization:
            raise ValueError(f"{given[0]} is that of quantized weights; add a quantization")
        if self.quantization == "int8" and self.algo_config in MIXED:
            raise ValueError(
                f"{self.algo_config} stores some weights of int4 in 8 bits; take k_quant for int8"
            )
        return self

    @property
    def form(self) -> str:
        """The name of what the model builder makes with these settings."""
        if self.quantization is None:
            return "onnx-fp32"
        method = self.algo_config or {"int8": "default", "int4": "k_quant_mixed"}[self.quantization]
        block, level = self.block_size or 32, self.accuracy_level or 4
        return f"onnx-{self.quantization}-{method}-block{block}-level{level}"


def options_of(form: str) -> tuple[str, dict[str, Any]]:
    """The model builder's precision and further options that make a form, by the form's name."""
    _, precision, *rest = form.split("-")
    if not rest:
        return precision, {}
    method, block, level = rest
    base = "k_quant" if method in MIXED else method
    options: dict[str, Any] = {
        "algo_config": base,
        "is_symmetric": base != "k_quant",  # it stores zero points in any case
        "block_size": int(block.removeprefix("block")),
        "accuracy_level": int(level.removeprefix("level")),
    }
    if method in MIXED:
        options["matmul_mixed_precision"] = MIXED[method]
    return precision, options
