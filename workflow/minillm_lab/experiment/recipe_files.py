"""The files and settings of recipes: what is searched, by which text, for which size and time."""

import sys
from zlib import crc32

from minillm_lab.experiment.plan import Plan
from minillm_lab.experiment.recipes import TYPES, OfVariant, bytes_in, seconds_in
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

    def threads(self, form: str) -> int | str:
        """The threads that a recipe's time is measured with."""
        return self.plan.models.recipe(form).threads_timed

    def times(self, model: str, form: str) -> str | list[str]:
        """What types cost in time, if a recipe is bound by it: for its search and its threads."""
        if not self.plan.models.recipe(form).time:
            return []
        of = recipe_of(form)[0] + ending(self.types(form))
        return f"models/{model}/times{of}+threads-{self.threads(form)}.json"

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

    def as_large_as(self, model: str, form: str) -> str | list[str]:
        """The model's file whose bytes a recipe may take, if it names another variant's."""
        size = self.plan.models.recipe(form).size
        return self.plan.models.path(model, size.form) if isinstance(size, OfVariant) else []

    def as_fast_as(self, model: str, form: str) -> str | list[str]:
        """The model's file that a recipe is to be as fast as, if it names another variant's."""
        time = self.plan.models.recipe(form).time
        return self.plan.models.path(model, time.form) if isinstance(time, OfVariant) else []

    def time(self, form: str) -> str:
        """A recipe's time and threads as the command takes them; empty if it has no time."""
        time, threads = self.plan.models.recipe(form).time, f"--threads {self.threads(form)}"
        if isinstance(time, str):
            return f"--seconds {seconds_in(time):g} {threads}"
        return threads if time else ""

    def size(self, form: str) -> str:
        """A recipe's size as the command takes it; empty if it is that of another file."""
        asked = self.plan.models.recipe(form)
        if isinstance(asked.size, str):
            return f"--size {bytes_in(asked.size)}"
        return f"--bits-per-weight {asked.bits_per_weight}" if asked.bits_per_weight else ""

    def types(self, form: str) -> list[str]:
        """The types that a recipe chooses from."""
        return self.plan.models.recipe(form).chosen_from
