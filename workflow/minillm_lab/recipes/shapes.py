"""The file of a search: what groups of tensors lose by type."""

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
