"""Other libraries than llama.cpp that quantize models, and the forms of a model that they read."""

import re
from typing import Literal, get_args

Packed = Literal["bnb-nf4", "bnb-int8", "torchao-int8"]
PACKED: tuple[Packed, ...] = get_args(Packed)
LIBRARIES = {  # by the beginning of a form's name
    "bnb": "bitsandbytes", "torchao": "torchao", "mlx": "mlx",
}  # fmt: skip


def library_of(form: str) -> str | None:
    """The library that makes and reads a form, as ``runtimes.MODULES`` names it.

    None for GGUF and safetensors as they are. Such a form is named after its library: ``bnb-nf4``.
    """
    return LIBRARIES.get(form.partition("-")[0])


def is_plain(form: str) -> bool:
    """Whether another library's form holds weights that it did not quantize: ``mlx-float16``."""
    return library_of(form) is not None and "float" in form.split("-")[1]


def bits_of(form: str) -> int | None:
    """The bits of a weight that a form is named after: 4 of Q4_K_M, bnb-nf4, mlx-b4-g64-float16."""
    found = re.search(r"^[IT]?Q(\d)|(?:nf|int|-b)(\d)", form)
    return int(found[1] or found[2]) if found else None
