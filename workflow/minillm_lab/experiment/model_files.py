"""Which files a model has in each form, what they are made from, and what makes them stale.

All paths are relative to the working folder. A form is what a runtime reads: ``safetensors``, or a
quantization type as GGUF.
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
        """A model in one form: from its source where it ships it, else made here."""
        source = self.models[model]
        if form == "safetensors":
            where = "source/safetensors" if source.ships_safetensors else "safetensors"
        elif form in source.shipped_gguf:
            where = f"source/{Path(source.shipped_gguf[form]).name}"
        else:
            where = f"{form}.gguf"
        return f"models/{model}/{where}"

    def unquantized(self, model: str) -> str:
        """The GGUF that quantizations are made from: the finest shipped one, else F16."""
        shipped = self.models[model].shipped_gguf
        return self.path(model, next((t for t in UNQUANTIZED if t in shipped), "F16"))

    def source(self, model: str) -> str:
        """What unquantized GGUF files are made from: safetensors, else the finest GGUF shipped."""
        source = self.models[model]
        if source.ships_safetensors:
            return self.path(model, "safetensors")
        finest = min(
            source.shipped_gguf,
            key=lambda t: (*UNQUANTIZED, *QUANTIZATION_TYPES, "unknown").index(t),
        )
        return self.path(model, finest)

    def made_from(self, model: str, form: str) -> str:
        """What a form that the source lacks is made from: the source itself, or what came of it.

        Unquantized types come from the source itself, so that none goes through a coarser one; but
        quantized weights are unpacked once.
        """
        straight = form in UNQUANTIZED and not self.models[model].unpacked
        return self.source(model) if straight or form == "F16" else self.unquantized(model)

    def converter(self, model: str) -> str | list[str]:
        """llama.cpp's converter, for a model that ships safetensors; else nothing."""
        if self.models[model].ships_safetensors:
            return f"models/.converter/{version('llama-cpp-python')}"
        return []

    def dither(self, model: str, type_: str) -> float:
        """The share of a step by which weights move when they become an unquantized type."""
        return (self.models[model].dither or 0) if type_ == "F16" else 0

    def tokenizer(self, model: str) -> str:
        """What the prompt is tokenized with: files of the source, so no variant changes it."""
        if self.models[model].kind == "hub" and self.models[model].ships_safetensors:
            return f"models/{model}/source/tokenizer"
        return self.source(model)

    def local(self, model: str) -> list[str]:
        """The files of a model that lies on this machine: changing them makes results stale."""
        path = Path(self.models[model].path or "")
        if not self.models[model].path:
            return []
        if not path.is_dir():
            return [str(path)]
        return sorted({str(f) for pattern in SAFETENSORS_FILES for f in path.glob(pattern)})

    def _stamps(self, model: str) -> list[str]:
        """What tells a model's local files from others in their place; empty where it has none."""
        return [f"{file} {stamp(file)}" for file in self.local(model)]

    def fetched(self, model: str, name: str) -> str:
        """What a fetch depends on, as sorted JSON: the source without what others fetch of it.

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
        """What was fetched for a file, or for what it is made from, and which local files."""
        while Path(path).parent.name != "source":
            path = self.made_from(model, Path(path).stem)
        return [self.fetched(model, Path(path).name), *self.stamps(model)]

    def provenance(self, model: str) -> str:
        """Where the model comes from, as sorted JSON: what a result's ``source`` says."""
        return json.dumps(self.models[model].model_dump(exclude_none=True), sort_keys=True)
