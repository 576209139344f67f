"""Other libraries than llama.cpp that quantize models, and the forms of a model that they read."""

import re
from typing import Literal, get_args

Packed = Literal["bnb-nf4", "bnb-int8", "torchao-int8"]
PACKED: tuple[Packed, ...] = get_args(Packed)
FORMS = {  # what the names of their forms look like
    "bitsandbytes": "bnb-(?:nf4|int8)",
    "torchao": "torchao-int8",
    "openvino": r"openvino-(?:unquantized|int8|int4_a?sym-\d+)",
    "onnx": r"onnx-(?:fp32|int[48]-\w+-block\d+-level\d)",
    "mlx": r"mlx-(?:b\d-g\d+-)?b?float\d\d",
}


def library_of(form: str) -> str | None:
    """The library that makes and reads a form, as ``runtimes.MODULES`` names it.

    None for GGUF and for safetensors as they are.
    """
    return next((name for name, named in FORMS.items() if re.fullmatch(named, form)), None)


def is_plain(form: str) -> bool:
    """Whether another library's form holds weights that it did not quantize: ``mlx-float16``."""
    return library_of(form) is not None and bits_of(form) is None


def bits_of(form: str) -> int | None:
    """The bits of a weight that a form is named after: 4 of Q4_K_M, bnb-nf4, mlx-b4-g64-float16."""
    found = re.search(r"^[IT]?Q(\d)|(?:nf|int|-b)(\d)", form)
    return int(found[1] or found[2]) if found else None
