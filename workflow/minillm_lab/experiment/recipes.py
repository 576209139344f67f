"""Recipes as a config asks for them: a size, and the types to choose from."""

import re
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from minillm_lab.experiment.mixtures import TensorType
from minillm_lab.experiment.sources import Name, Strict

UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
# What a recipe chooses from unless it names types: those that need no matrix, down to 2.6 bits.
TYPES = (
    "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K",
    "IQ3_S", "IQ3_XXS", "Q2_K",
)  # fmt: skip


class SizeOf(Strict):
    """A recipe may take as many bytes as another variant's file."""

    of: Name = Field(description="The file is at most as large as that of this variant.")


FileSize = Annotated[
    Annotated[
        str, Field(pattern=rf"^(\d+|\d+\.\d+) ?({'|'.join(UNITS)})$", max_length=40), Tag("a size")
    ]
    | Annotated[SizeOf, Tag("of a variant")],
    Discriminator(lambda given: "a size" if isinstance(given, str) else "of a variant"),
]
Types = Annotated[list[TensorType], Field(min_length=1, max_length=40)]


def bytes_in(size: str) -> int:
    """The bytes of a size such as 105MB."""
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", size).groups()  # type: ignore[union-attr]
    return round(float(number) * UNITS[unit])
