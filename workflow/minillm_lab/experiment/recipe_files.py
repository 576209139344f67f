"""The files and settings of recipes: what is searched, by which text, for which size."""

import sys
from zlib import crc32

from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.recipes import TYPES, SizeOf, bytes_in
from minillm_lab.experiment.sources import recipe_of, type_of


def ending(types: list[str]) -> str:
    """The end of the name of a search's file: which types, if they are not the lab's own list."""
    own = {*types} == {*TYPES}
    return "" if own else f"+types-{crc32(' '.join(types).encode()):08x}"


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

    def sensitivity(self, model: str, form: str) -> str:
        """What the groups of a recipe's model lose: once for all sizes by its matrix and types."""
        of = recipe_of(form)[0] + ending(self.types(form))
        return f"models/{model}/sensitivity{of}.json"

    def types_searched(self, ending_: str) -> list[str]:
        """The types that a search measures, by the end of its file's name."""
        for recipe in self.plan.models.recipes.values():
            if ending(recipe.chosen_from) == ending_:
                return recipe.chosen_from
        sys.exit(f"error: no variant asks for sensitivity{ending_}")

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
