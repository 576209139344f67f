"""The files of a search: what groups of tensors lose by type, and what types cost in time."""

from typing import Literal

from pydantic import Field

from minillm_lab.records import Record


class Choice(Record):
    """One type for a group of tensors."""

    bytes: int = Field(description="The group's tensors take this many bytes in the type.")
    error: float = Field(description="It is the type's error on the weights (recipes/errors.py).")
    loss: float = Field(description="The divergence rises by this much, in nats.")
    measured: bool = Field(description="The loss was measured; if not, it follows from the error.")


class GroupLoss(Record):
    """A group of tensors, and what it loses by type, the largest type first."""

    role: str
    layers: list[int]
    tensors: list[str]
    weights: int
    types: dict[str, Choice]


class Sensitivity(Record):
    """What a model's groups of tensors lose by type."""

    schema_version: Literal[1] = 1
    text: str
    chunks: int
    scored_tokens: int
    unquantized: str = Field(description="The other tensors were stored in this type.")
    imatrix: bool
    parts: int = Field(description="The layers were cut into this many parts.")
    minutes: float
    groups: list[GroupLoss]


class Pace(Record):
    """A file's times over those of another."""

    decode: float
    prefill: float = Field(description="For a prompt of 128 tokens.")
    seconds: float = Field(description="The file decoded a token in this time.")


class Alike(Record):
    """Tensors with rows of one length, and the model's times with them in a type.

    The times are those over the unquantized model's.
    """

    tensors: list[str]
    weights: dict[str, int] = Field(description="The type stores so many of the weights.")
    types: dict[str, Pace]


class Times(Record):
    """What types of tensors cost in time."""

    schema_version: Literal[1] = 1
    threads: int
    unquantized: str = Field(description="The other tensors were stored in this type.")
    alike: list[Alike]
