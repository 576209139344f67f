"""What quality may be measured against: the kinds of ``quality.reference``."""

import json
import sys
from collections.abc import Collection, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from minillm_lab.experiment.sources import Name, Repository, Sha256, Strict, stays_below
from minillm_lab.experiment.variants import LlamaCppVariant, TransformersVariant

FOLDER = "models/.references"  # of those that come from the hub


class ReferenceFile(Strict):
    """A reference may be a file made elsewhere, where the unquantized model does not fit here."""

    file: str = Field(
        pattern=r"^([^{}\x00-\x1f]|\{model\})+$",
        description="This path leads to the .npz file; {model} in it stands for the model's name.",
    )

    def serves(self, key: str, models: Collection[str]) -> None:
        """Raise ValueError, which names ``key``, unless each model has a file of its own."""
        differs(f"{key}.file", self.file, models)

    def of(self, model: str) -> str:
        """The path of a model's file."""
        return self.file.replace("{model}", model)


class PublishedFile(Strict):
    """A publisher's reference is one file of a repository, or one for each model."""

    repository: Repository = Field(
        description="The file is in this repository of the hub, written as owner/name."
    )
    revision: str = Field(
        pattern=r"^[0-9a-f]{40}$",
        description="The file is taken from this commit, in its 40 hexadecimal digits.",
    )
    file: Annotated[str, AfterValidator(stays_below)] = Field(
        pattern=r"^([^\\{}\x00-\x1f]|\{model\})+\.npz$",
        description="The .npz file has this path in the repository; {model} in it stands for the"
        " model's name.",
    )
    sha256: Annotated[
        Annotated[Sha256, Tag("a checksum")] | Annotated[dict[Name, Sha256], Tag("of each")],
        Discriminator(lambda given: "of each" if isinstance(given, dict) else "a checksum"),
    ] = Field(
        description="The file must have this SHA-256 checksum; with {model} in the path, each"
        " model's name stands before the checksum of its file."
    )

    @model_validator(mode="after")
    def has_a_checksum_for_each(self) -> "PublishedFile":
        if isinstance(self.sha256, dict) and "{model}" not in self.file:
            raise ValueError("one file has one sha256; write it alone, or {model} in the path")
        if isinstance(self.sha256, str) and "{model}" in self.file:
            raise ValueError("sha256 needs a line for each model, such as 'my-model: 0123…'")
        return self

    @property
    def path(self) -> str:
        """Where it is fetched to. The commit is in it, so that its content never changes."""
        return f"{FOLDER}/{self.repository}/{self.revision}/{self.file}"


class ReferenceOnHub(Strict):
    """The hub may ship a reference, so that nobody else needs the unquantized weights for it."""

    hub: PublishedFile = Field(description="The reference is this file of the Hugging Face hub.")

    def serves(self, key: str, models: Collection[str]) -> None:
        """Raise ValueError, which names ``key``, unless each model has a file with a checksum."""
        differs(f"{key}.hub.file", self.hub.file, models)
        sums = self.hub.sha256
        if isinstance(sums, dict) and (missing := [name for name in models if name not in sums]):
            raise ValueError(
                f"{key}.hub.sha256: the file of {missing[0]!r} has no checksum; add it"
            )

    def of(self, model: str) -> PublishedFile:
        """The file of one model."""
        sums, file = self.hub.sha256, self.hub.file.replace("{model}", model)
        mine = sums if isinstance(sums, str) else sums[model]
        return self.hub.model_copy(update={"file": file, "sha256": mine})


def published_at(place: str, files: Iterable[PublishedFile]) -> str:
    """The one of the files that is fetched to ``place`` below FOLDER, as sorted JSON.

    Exits with one line if none is.
    """
    for file in files:
        if file.path == f"{FOLDER}/{place}":
            return json.dumps(file.model_dump(), sort_keys=True)
    sys.exit(f"error: {FOLDER}/{place}: this experiment names no such reference")


def differs(key: str, path: str, models: Collection[str]) -> None:
    """Raise ValueError if several models have one path, and so one reference."""
    if "{model}" not in path and len(models) > 1:
        raise ValueError(
            f"{key}: one file cannot be the reference of {len(models)} models;"
            " write {model} in its path where the files' names differ"
        )


def kind_of_reference(reference: Any) -> str | None:
    """Which kind of ``reference`` it is, as pydantic's tag; None where it is none."""
    if isinstance(reference, ReferenceFile | ReferenceOnHub):
        return "a file" if isinstance(reference, ReferenceFile) else "on the hub"
    if not isinstance(reference, dict):
        runtime = getattr(reference, "runtime", None)
        return runtime or "a name"
    runtime = reference.get("runtime")
    if isinstance(runtime, str):
        return runtime
    return "a file" if "file" in reference else "on the hub" if "hub" in reference else None


Reference = Annotated[
    Annotated[Name, Tag("a name")]
    | Annotated[TransformersVariant, Tag("transformers")]
    | Annotated[LlamaCppVariant, Tag("llama.cpp")]
    | Annotated[ReferenceFile, Tag("a file")]
    | Annotated[ReferenceOnHub, Tag("on the hub")],
    Discriminator(kind_of_reference),
]
