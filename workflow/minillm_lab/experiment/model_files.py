"""The files of a model in each form, their sources, and what makes them stale.

All paths are relative to the working folder. A form is how a runtime reads a model:
``safetensors``, the label of a GGUF as published, or a quantization type, with what else than the
type the file made here depends on behind a plus: ``Q4_K_M+imatrix+tensors-0a1b2c3d``. A GGUF in
parts is a folder.
"""

import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from minillm_lab.experiment.libraries import library_of
from minillm_lab.experiment.sources import (
    QUANTIZATION_TYPES,
    SAFETENSORS_FILES,
    UNQUANTIZED,
    Model,
    recipe_of,
)
from minillm_lab.experiment.variants import LlamaCppVariant
from minillm_lab.jobs.staleness import stamp


class ModelFiles:
    """The files of an experiment's models, by the models' names."""

    def __init__(
        self,
        models: Mapping[str, Model],
        imatrices: Mapping[str, str],
        mixtures: Mapping[str, Mapping[str, str]],
        recipes: Mapping[str, LlamaCppVariant],
    ) -> None:
        """By the parts of the end of a form's name (``recipe_of``):

        ``imatrices``: where the importance matrix comes from. ``mixtures``: types of tensors, by
        pattern. ``recipes``: the settings that ask for one.
        """
        self.models, self.imatrices, self.mixtures = models, imatrices, mixtures
        self.recipes = recipes
        self.stamps = cache(self._stamps)

    def path(self, model: str, form: str) -> str:
        """The path of a model in one form, as its source ships it or as it is made here."""
        source = self.models[model]
        if library_of(form):
            where = form
        elif form == "safetensors":
            where = "source/safetensors" if source.ships_safetensors else "safetensors"
        elif form in source.shipped_gguf:
            where = f"source/{source.shipped_gguf[form]}"
        else:
            where = f"{form}.gguf"
        return f"models/{model}/{where}"

    def unquantized(self, model: str) -> str:
        """The GGUF from which quantizations are made: the finest unquantized one, or F16."""
        shipped = self.models[model].shipped_gguf
        return self.path(model, next((t for t in UNQUANTIZED if t in shipped), "F16"))

    def source(self, model: str) -> str:
        """The source of unquantized GGUF files: safetensors, or else the finest GGUF shipped."""
        source = self.models[model]
        if source.ships_safetensors:
            return self.path(model, "safetensors")
        finest_first = (*UNQUANTIZED, *QUANTIZATION_TYPES, *source.shipped_gguf)
        return self.path(model, min(source.shipped_gguf, key=finest_first.index))

    def made_from(self, model: str, form: str) -> str:
        """The file from which a form that is not shipped is made.

        Unquantized types are made from the source itself, so that none goes through a coarser one;
        but weights that were shipped quantized are unpacked only once, to F16. Other libraries
        than llama.cpp read safetensors.
        """
        if library_of(form):
            return self.path(model, "safetensors")
        straight = form in UNQUANTIZED and not self.models[model].unpacked
        return self.source(model) if straight or form == "F16" else self.unquantized(model)

    def packed_from(self, model: str, form: str) -> str | list[str]:
        """The safetensors that a form was made from, if another library than llama.cpp made it."""
        return self.made_from(model, form) if library_of(form) else []

    def imatrix(self, model: str, form: str) -> str | list[str]:
        """The importance matrix that a form made here is made with, if any."""
        if (source := self._imatrix(form)) == "none":
            return []
        name = recipe_of(form)[0].removeprefix("+")
        return f"models/{model}/{name}.gguf" if self.makes_imatrix(form) else source

    def makes_imatrix(self, form: str) -> bool:
        """Whether the importance matrix of a form is made here, of a text."""
        return self._imatrix(form) != "none" and not self._imatrix(form).endswith(".gguf")

    def imatrix_stamp(self, form: str) -> str:
        """A stamp of a matrix that the config names, which changes if it is replaced."""
        source = self._imatrix(form)
        return stamp(source) if source.endswith(".gguf") else ""

    def _imatrix(self, form: str) -> str:
        """Where the importance matrix of a form comes from, as the config says it."""
        source = self.imatrices.get(recipe_of(form)[0])
        return source or sys.exit(f"error: no variant asks for {form}")

    def mixture(self, form: str) -> str:
        """The types of tensors that a form made here is made with, by pattern in order, as JSON."""
        found = self.mixtures.get(recipe_of(form)[1])
        return (
            sys.exit(f"error: no variant asks for {form}") if found is None else json.dumps(found)
        )

    def recipe(self, form: str) -> LlamaCppVariant:
        """The settings that ask for a recipe."""
        found = self.recipes.get(recipe_of(form)[1])
        return found or sys.exit(f"error: no variant asks for {form}")

    def calibration(self, of: str) -> str:
        """The text that an importance matrix is made from: ``own`` for the lab's, or a path."""
        known = self.imatrices.get(f"+imatrix{of}")
        return known or sys.exit(f"error: no variant asks for imatrix{of}")

    def converter(self, model: str) -> str | list[str]:
        """llama.cpp's converter, if the model ships safetensors; else nothing."""
        if self.models[model].ships_safetensors:
            return f"models/.converter/{version('llama-cpp-python')}"
        return []

    def dither(self, model: str, type_: str) -> float:
        """The share of a step by which weights move when they are unpacked to a type."""
        return (self.models[model].dither or 0) if type_ == "F16" else 0

    def tokenizer(self, model: str) -> str:
        """The source's files that hold the tokenizer, so that no variant changes the prompt."""
        if self.models[model].kind == "hub" and self.models[model].ships_safetensors:
            return f"models/{model}/source/tokenizer"
        return self.source(model)

    def local(self, model: str, name: str) -> list[str]:
        """The files on this machine that a fetch links to: changing them makes results stale.

        ``name`` is as in ``fetched``.
        """
        source = self.models[model]
        path = Path(source.path or "")
        if not source.path:
            return []
        if source.files:
            entries = [entry for entry in source.files.values() if entry.place == name]
            return [str(path / part.file) for entry in entries for part in entry.files]
        if not path.is_dir():
            return [str(path)]
        return sorted({str(f) for pattern in SAFETENSORS_FILES for f in path.glob(pattern)})

    def _stamps(self, model: str, name: str) -> list[str]:
        """Stamps of those files, which change if one is replaced; none without files."""
        return [f"{file} {stamp(file)}" for file in self.local(model, name)]

    def fetched(self, model: str, name: str) -> str:
        """The part of a model's source that one fetch depends on, as sorted JSON.

        ``name`` is that of a GGUF file or of a folder of its parts, ``safetensors`` or
        ``tokenizer``.
        """
        entry = self.models[model]
        source = entry.model_dump(exclude_none=True, exclude={"dither", "reference"})
        dumped = {label: f.model_dump(exclude_none=True) for label, f in entry.listed_gguf.items()}
        mine = {label: f for label, f in dumped.items() if entry.shipped_gguf[label] == name}
        hub = source.get("hub", {})
        if name in ("safetensors", "tokenizer"):
            hub.pop("gguf", None)
        elif hub:
            source["hub"] = {"gguf": hub["gguf"] | {"files": mine}}
        elif mine:
            source["files"] = mine
        return json.dumps(source, sort_keys=True)

    def origin(self, model: str, path: str) -> list[str]:
        """The fetch that a file goes back to, as sorted JSON, and the stamps of local files."""
        while Path(path).parent.name != "source":
            path = self.made_from(model, Path(path).stem)
        return [self.fetched(model, Path(path).name), *self.stamps(model, Path(path).name)]

    def provenance(self, model: str) -> str:
        """The model's entry in the config, as sorted JSON, for a result's ``source``."""
        source = self.models[model].model_dump(exclude_none=True, exclude={"reference"})
        return json.dumps(source, sort_keys=True)
