"""The files and settings of recipes: what is searched, by which text, for which size."""

import sys

from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.recipes import SizeOf, bytes_in
from minillm_lab.experiment.sources import recipe_of, type_of
from minillm_lab.experiment.variants import LlamaCppVariant


class Recipes:
    """The recipes of a plan.

    ``of``: the end of a form's name that says by which matrix, as ``+imatrix``.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def minutes(self) -> int:
        """How long a search may take."""
        return int(self.plan.experiment.search.removesuffix("min"))

    def types_searched(self, model: str, of: str) -> list[str]:
        """All types that a model's recipes choose from; exits if it has none by this matrix."""
        found = list[str]()
        for name, variant in self.plan.experiment.variants.items():
            if not isinstance(variant, LlamaCppVariant) or variant.quantization != "recipe":
                continue
            if self.plan.model(name) == model and recipe_of(variant.recipe)[0] == of:
                found += variant.chosen_from
        return list(dict.fromkeys(found)) or sys.exit(f"error: no variant asks for sensitivity{of}")

    def text(self, of: str) -> str:
        """The text that losses are measured on: the matrix's own, else the lab's."""
        source = self.plan.models.imatrices.get(of, "none")
        made_of_it = source not in ("own", "none") and not source.endswith(".gguf")
        return self.plan.calibration(of.removeprefix("+imatrix") if made_of_it else "")

    def file(self, model: str, form: str) -> str | list[str]:
        """The recipe that a form is made by, if it is one."""
        return f"models/{model}/{form}.json" if type_of(form) == "recipe" else []

    def as_large_as(self, form: str) -> str | list[str]:
        """The file whose bytes a recipe may take, if it names another variant's."""
        size = self.plan.models.recipe(form).size
        return self.plan.weights(size.of) if isinstance(size, SizeOf) else []

    def size(self, form: str) -> str:
        """A recipe's size as the command takes it; empty if it is that of another file."""
        asked = self.plan.models.recipe(form)
        if isinstance(asked.size, str):
            return f"--size {bytes_in(asked.size)}"
        return f"--bits-per-weight {asked.bits_per_weight}" if asked.bits_per_weight else ""

    def types(self, form: str) -> list[str]:
        """The types that a recipe chooses from."""
        return self.plan.models.recipe(form).chosen_from
