"""The files of a model in each form, their sources, and what makes them stale.

All paths are relative to the working folder. A form is how a runtime reads a model:
``safetensors``, or a quantization type as GGUF.
"""

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from minillm_lab.experiment.sources import (
    QUANTIZATION_TYPES,
    SAFETENSORS_FILES,
    UNQUANTIZED,
    Model,
)
from minillm_lab.jobs.staleness import stamp


class ModelFiles:
    """The files of an experiment's models, by the models' names."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.models = models
        self.stamps = cache(self._stamps)

    def path(self, model: str, form: str) -> str:
        """The path of a model in one form, as its source ships it or as it is made here."""
        source = self.models[model]
        if form == "safetensors":
            where = "source/safetensors" if source.ships_safetensors else "safetensors"
        elif form in source.shipped_gguf:
            where = f"source/{Path(source.shipped_gguf[form]).name}"
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
        finest = min(
            source.shipped_gguf,
            key=lambda t: (*UNQUANTIZED, *QUANTIZATION_TYPES, "unknown").index(t),
        )
        return self.path(model, finest)

    def made_from(self, model: str, form: str) -> str:
        """The file from which a form that is not shipped is made.

        Unquantized types are made from the source itself, so that none goes through a coarser one;
        but weights that were shipped quantized are unpacked only once, to F16.
        """
        straight = form in UNQUANTIZED and not self.models[model].unpacked
        return self.source(model) if straight or form == "F16" else self.unquantized(model)

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

    def local(self, model: str) -> list[str]:
        """The files of a model on this machine, whose changes make results stale."""
        path = Path(self.models[model].path or "")
        if not self.models[model].path:
            return []
        if not path.is_dir():
            return [str(path)]
        return sorted({str(f) for pattern in SAFETENSORS_FILES for f in path.glob(pattern)})

    def _stamps(self, model: str) -> list[str]:
        """Stamps of a model's local files, which change if one is replaced; none without files."""
        return [f"{file} {stamp(file)}" for file in self.local(model)]

    def fetched(self, model: str, name: str) -> str:
        """The part of a model's source that one fetch depends on, as sorted JSON.

        ``name`` is a GGUF file's name, ``safetensors`` or ``tokenizer``.
        """
        source = self.models[model].model_dump(exclude_none=True, exclude={"dither"})
        hub = source.get("hub", {})
        if name in ("safetensors", "tokenizer"):
            hub.pop("gguf", None)
        elif hub:
            files = hub["gguf"]["files"]
            hub["gguf"]["files"] = {t: f for t, f in files.items() if Path(f["file"]).name == name}
            source["hub"] = {"gguf": hub["gguf"]}
        return json.dumps(source, sort_keys=True)

    def origin(self, model: str, path: str) -> list[str]:
        """The fetch that a file goes back to, as sorted JSON, and the stamps of local files."""
        while Path(path).parent.name != "source":
            path = self.made_from(model, Path(path).stem)
        return [self.fetched(model, Path(path).name), *self.stamps(model)]

    def provenance(self, model: str) -> str:
        """The model's entry in the config, as sorted JSON, for a result's ``source``."""
        return json.dumps(self.models[model].model_dump(exclude_none=True), sort_keys=True)
