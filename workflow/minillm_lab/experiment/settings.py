"""The settings that variants of every runtime have, and the kinds of node they may name."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from minillm_lab.experiment.sources import LONGEST, Name, Strict


class Node(Strict):
    """A node entry names a kind of node of a Slurm cluster, in sbatch's terms (docs/scaling.md)."""

    account: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Slurm charges the jobs to this account.",
    )
    partition: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._,-]*$",
        description="Slurm runs the jobs in this partition, or in one of several between commas.",
    )
    constraint: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9(\[][A-Za-z0-9._&|*()\[\]-]*$",
        description="Slurm runs the jobs only on nodes with these features.",
    )
    gpus: int | None = Field(
        None, ge=1, le=64, description="Each job gets this many GPUs; without it, none."
    )


def no_switch(given: object) -> object:
    """A number, unless it is true or false, which Python takes for 1 and 0: then a ValueError."""
    if isinstance(given, bool):
        raise ValueError(f"{str(given).lower()} is no number; write one")
    return given


NoSwitch = BeforeValidator(no_switch)
Threads = Annotated[
    Annotated[Literal["auto"], Tag("a word")]
    | Annotated[int, Field(ge=1, le=1024), Tag("a number")],
    Discriminator(lambda given: "a word" if isinstance(given, str) else "a number"),
]


class Settings(Strict):
    """Every variant may set these keys for itself."""

    OF_THE_FILE: ClassVar[frozenset[str]] = frozenset()  # keys that say which file it is

    model: Name | None = Field(
        None,
        description="The variant runs this entry of models; without it, the experiment's model.",
    )
    device: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="The variant runs on this device; if no GPU is found, it runs on the CPU, and a"
        " warning says so.",
    )
    threads: Threads | None = Field(
        None,
        description="Inference uses this many threads; auto takes the physical cores that the"
        " process may use. Without it, inference uses the experiment's threads.",
    )
    context: int | None = Field(
        None,
        ge=16,
        le=LONGEST,
        description="The context has room for this many tokens; without it, for as many as the"
        " experiment's.",
    )
    node: Name | None = Field(
        None,
        description="On a Slurm cluster the variant is measured on this entry of nodes; elsewhere"
        " it changes nothing.",
    )

    @property
    def engine(self) -> str:
        """The runtime with the library that it needs besides, as ``runtimes.MODULES`` names it."""
        return str(self.model_dump(include={"runtime"})["runtime"])

    @property
    def form(self) -> str:
        """What the runtime reads: safetensors, a quantization, or a published file."""
        raise NotImplementedError

    @property
    def held(self) -> str:
        """The form, or the type, in which memory holds the weights."""
        return self.form

    @property
    def recipe(self) -> str:
        """What else than its type a file made here depends on, as the end of its form's name."""
        return ""
