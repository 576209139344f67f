"""Mixtures: types of single tensors, by patterns of their names, as a config may ask for them."""

import re
import warnings
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from minillm_lab.experiment.sources import QUANTIZATION_TYPES
from minillm_lab.result import main_type

# Types of a single tensor that llama.cpp's quantizer makes, as ggml names them in upper case.
TensorType = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL",
    "IQ4_XS", "MXFP4", "NVFP4", "Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS",
    "TQ2_0", "IQ1_M", "TQ1_0", "IQ1_S", "Q1_0",
]  # fmt: skip
TENSOR_TYPES: tuple[str, ...] = get_args(TensorType)


def is_of_a_tensor(type_: object) -> object:
    """A type, unless it is one of whole files, or spelled otherwise: then a ValueError says so."""
    if not isinstance(type_, str) or type_ in TENSOR_TYPES:
        return type_
    upper = type_.upper()
    if upper in TENSOR_TYPES:
        raise ValueError(f"write {upper} for {type_!r}")
    if upper in QUANTIZATION_TYPES:
        single = main_type(upper)
        raise ValueError(f"{type_} is a recipe for whole files; a single tensor takes {single}")
    return type_


def are_patterns(mixture: dict[str, str]) -> dict[str, str]:
    """A mixture whose patterns are regular expressions."""
    for pattern in mixture:
        try:
            with warnings.catch_warnings(action="error"):  # such as [[:digit:]]
                re.compile(pattern)
        except (re.error, FutureWarning, RecursionError, OverflowError) as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}; correct it") from None
    return mixture


Pattern = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=200)]
Mixture = Annotated[
    dict[Pattern, Annotated[TensorType, BeforeValidator(is_of_a_tensor)]],
    Field(max_length=1000),
    AfterValidator(are_patterns),
]
