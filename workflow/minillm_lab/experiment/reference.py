"""What quality may be measured against: the kinds of ``quality.reference``."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from minillm_lab.experiment.sources import Name, Strict
from minillm_lab.experiment.variants import LlamaCppVariant, TransformersVariant


class ReferenceFile(Strict):
    """A reference may be a file made elsewhere, where the unquantized model does not fit here."""

    file: str = Field(
        pattern=r"^([^{}\x00-\x1f]|\{model\})+$",
        description="This path leads to the .npz file; {model} in it stands for the model's name.",
    )

    @property
    def is_one(self) -> bool:
        """Whether every model has the same file."""
        return "{model}" not in self.file


def kind_of_reference(reference: Any) -> str | None:
    """Which kind of ``reference`` it is, as pydantic's tag; None where it is none."""
    if not isinstance(reference, dict):
        runtime = getattr(reference, "runtime", None)
        return runtime or ("a file" if isinstance(reference, ReferenceFile) else "a name")
    runtime = reference.get("runtime")
    return runtime if isinstance(runtime, str) else "a file" if "file" in reference else None


Reference = Annotated[
    Annotated[Name, Tag("a name")]
    | Annotated[TransformersVariant, Tag("transformers")]
    | Annotated[LlamaCppVariant, Tag("llama.cpp")]
    | Annotated[ReferenceFile, Tag("a file")],
    Discriminator(kind_of_reference),
]
