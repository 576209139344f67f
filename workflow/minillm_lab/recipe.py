"""A recipe: the types of tensors that lose least within bounds, and what it was chosen by."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from minillm_lab.records import Record

KEY = "minillm_lab."  # how the keys of a file's header begin
JUST = 1.01  # of the time that a file may take; some seconds of turns tell no less apart


class Candidate(Record):
    """A whole file that was scored."""

    power: float
    bytes: int
    predicted: float = Field(description="The losses of its groups have this sum, in nats.")
    measured: float = Field(description="Its mean divergence on the calibration text, in nats.")
    times: dict[str, float] = Field(
        {}, description="Its times for decoding and prefill, over those that it may take."
    )

    @property
    def in_time(self) -> bool:
        return all(share <= JUST for share in self.times.values())


class Chosen(Record):
    """A group of tensors, its type in the recipe, and what it loses, in nats."""

    role: str
    layers: list[int]
    weights: int
    type: str
    loss: float
    loss_in_same: float | None = Field(description="It loses this much in the type ``same``.")


class Recipe(Record):
    """Types of a model's tensors for a size, a time, or both."""

    schema_version: Literal[1] = 1
    lab: str = Field(description="This version of the lab made it.")
    size: int | None = Field(description="The file was to take at most this many bytes, if any.")
    time: str | None = Field(None, description="It was to take at most this long, if any.")
    bytes: int
    type: str = Field(description="The file says in its header that it is of this type.")
    tensors: dict[str, str] = Field(description="The type of each tensor, by pattern of its name.")
    predicted: float
    measured: float
    candidates: list[Candidate]
    same: str | None = Field(
        description="The groups are compared by what they lose in this type; null if no type is a"
        " choice for all."
    )
    groups: list[Chosen]

    @property
    def bounds(self) -> str:
        """The size and the time that it was made for."""
        size = [f"{self.size} bytes"] if self.size else []
        return " and ".join([*size, *([self.time] if self.time else [])])


def told(tensors: Mapping[str, str], lab: str) -> dict[str, str | int]:
    """What a file's header says of its recipe: the lab's version, and a line for each pattern."""
    found: dict[str, str | int] = {f"{KEY}version": lab}
    for i, (pattern, type_) in enumerate(tensors.items()):
        found[f"{KEY}recipe.{i}"] = f"{pattern}={type_}"
    return found
