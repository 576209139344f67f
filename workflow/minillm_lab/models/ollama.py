"""Models in Ollama's store on this disk: from a name, as Ollama lists it, to its GGUF file.

For each name the store holds a manifest, JSON in <root>/<host>/<namespace>/<model>/<tag>. It lists
layers by the checksums of their files, which lie in blobs (Ollama's manifest/paths.go,
types/model/name.go).
"""

import os
import re
from pathlib import Path

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.remote import as_object

PREFIX = "ollama:"
ROOTS = ("manifests-v2", "manifests")  # newer versions of Ollama look into both, in this order
PUBLIC = ("registry.ollama.ai", "ollama.com")  # the host of a name that has none, in either root
KIND = "application/vnd.ollama.image."
DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


def in_store(source: str) -> tuple[Path, tuple[str, ...]]:
    """The GGUF file of ``ollama:<name>``, and what to say of the layers that are left out.

    Raises LabError if there is no such name, or if it stands for anything but one GGUF file.
    """
    name = listed(*parts_of(source.removeprefix(PREFIX)))
    there = manifests()
    path = next((there[one] for one in there if one.lower() == name.lower()), None)
    if path is None:
        raise LabError(f"{source}: Ollama has no model {name} here; it has: {', '.join(there)}")
    layers = as_object(path.read_bytes(), f"{source}: {path}").get("layers")
    kinds: dict[str, list[str]] = {}
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and (found := DIGEST.fullmatch(str(layer.get("digest")))):
            kind = str(layer.get("mediaType")).removeprefix(KIND).partition(";")[0]
            kinds.setdefault(kind, []).append(found[1])
    for kind in ("adapter", "controlvector"):  # Ollama would run another model than the file is
        if kind in kinds:
            raise LabError(f"{source}: has a layer {kind}, which is not added here; name another")
    files = kinds.get("model", [])
    if len(files) != 1:
        what = ", ".join(sorted(kinds)) or "none that is known"
        raise LabError(f"{source}: holds {len(files)} GGUF files, not one (its layers: {what})")
    blob = path.parents[4] / "blobs" / f"sha256-{files[0]}"
    if not blob.is_file():
        raise LabError(f"{source}: its file {blob} is missing; `ollama pull {name}` brings it")
    projector = f"the projector of {name} (generates no text by itself)"
    return blob, (projector,) if "projector" in kinds else ()


def stores() -> list[Path]:
    """The folders in which Ollama may keep models: the one that is set, else its defaults."""
    given = os.environ.get("OLLAMA_MODELS", "").strip("\"' ")
    home = Path.home() / ".ollama/models"
    return [Path(given)] if given else [home, Path("/usr/share/ollama/.ollama/models")]


def manifests() -> dict[str, Path]:
    """Every manifest by its name, sorted. Raises LabError if there is none."""
    found: dict[str, Path] = {}
    for root in (store / root for store in stores() for root in ROOTS):
        for path in root.glob("*/*/*/*"):
            if path.is_file():
                host, namespace, model, tag = path.relative_to(root).parts
                found.setdefault(listed(host, namespace, model, tag), path)
    if not found:
        where = " or ".join(map(str, stores()))
        raise LabError(
            f"no model of Ollama's in {where}; set OLLAMA_MODELS to its folder of models"
        )
    return dict(sorted(found.items()))


def parts_of(name: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of [host/][namespace/]model[:tag]."""
    *before, last = name.split("/")
    model, _, tag = last.partition(":")
    host = "/".join(before[:-1]) or PUBLIC[0]
    return host, before[-1] if before else "library", model, tag or "latest"


def listed(host: str, namespace: str, model: str, tag: str) -> str:
    """A name as ``ollama list`` writes it: without what it would fill in, but for the tag."""
    public = host.lower() in PUBLIC
    shown = [
        *([] if public else [host]),
        *([] if public and namespace == "library" else [namespace]),
    ]
    return "/".join([*shown, f"{model}:{tag}"])
