"""Recipes as a config asks for them: a size, a time, and the types to choose from."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag

from minillm_lab.experiment.mixtures import TensorType, is_of_a_tensor
from minillm_lab.experiment.sources import Name, Strict

UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SECONDS = {"ms": 1e-3, "s": 1.0}
# What a recipe chooses from unless it names types, down to 2.6 bits.
TYPES = (
    "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K",
    "IQ3_S", "IQ3_XXS", "Q2_K",
)  # fmt: skip


UNKNOWN = ("MXFP4", "NVFP4", "Q1_0")  # llama.cpp makes no file that is mostly of such a type


def has_a_unit(size: object, such: str = "105MB") -> object:
    """What may be a size or a time; a ValueError says what to write in place of anything else."""
    if isinstance(size, int | float) and not isinstance(size, bool):
        raise ValueError(f"write a unit behind {size}, such as {such}")
    if not isinstance(size, str | dict | OfVariant):
        raise ValueError(f"write it as {such}, or as {{of: a variant}}")
    return size


def is_a_size(size: str) -> str:
    """A size, unless it is none: then a ValueError."""
    if not bytes_in(size):
        raise ValueError("no file is that small; name a larger size")
    return size


def has_a_unit_of_time(time: object) -> object:
    """The same of a time."""
    return has_a_unit(time, "20ms")


def is_a_time(time: str) -> str:
    """A time, unless it is none: then a ValueError."""
    if not seconds_in(time):
        raise ValueError("no token takes no time; name a longer one")
    return time


def can_be_chosen(type_: str) -> str:
    """A type that a recipe can choose."""
    if type_ in UNKNOWN:
        raise ValueError(f"a recipe cannot choose {type_}; leave it out")
    return type_


class OfVariant(Strict):
    """A recipe is bound by another variant's file."""

    of: Name = Field(description="The file is at most as large, or as slow, as this variant's.")
    _form: str = PrivateAttr("")

    @property
    def form(self) -> str:
        """That variant's form of the model; its name, until the whole experiment was checked."""
        return self._form or self.of

    def found(self, form: str) -> None:
        self._form = form


FileSize = Annotated[
    Annotated[
        str,
        Field(pattern=rf"^([0-9]+|[0-9]+\.[0-9]+)({'|'.join(UNITS)})$", max_length=40),
        AfterValidator(is_a_size),
        Tag("a size"),
    ]
    | Annotated[OfVariant, Tag("of a variant")],
    Discriminator(lambda given: "a size" if isinstance(given, str) else "of a variant"),
    BeforeValidator(has_a_unit),
]
TokenTime = Annotated[
    Annotated[
        str,
        Field(pattern=r"^([0-9]+|[0-9]+\.[0-9]+)(ms|s)$", max_length=40),
        AfterValidator(is_a_time),
        Tag("a time"),
    ]
    | Annotated[OfVariant, Tag("of a variant")],
    Discriminator(lambda given: "a time" if isinstance(given, str) else "of a variant"),
    BeforeValidator(has_a_unit_of_time),
]
Types = Annotated[
    list[Annotated[TensorType, BeforeValidator(is_of_a_tensor), AfterValidator(can_be_chosen)]],
    Field(min_length=1, max_length=40),
]


def bytes_in(size: str) -> int:
    """The bytes of a size such as 105MB."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", size).groups()  # type: ignore[union-attr]
    return round(float(number) * UNITS[unit])


def seconds_in(time: str) -> float:
    """The seconds of a time such as 20ms."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", time).groups()  # type: ignore[union-attr]
    return float(number) * SECONDS[unit]
