"""The reference that ``new --reference`` names: a file of the hub, a file here, or a variant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.jobs.errors import LabError
from minillm_lab.models import discover
from minillm_lab.models.discover import REPOSITORY
from minillm_lab.models.found import Found
from minillm_lab.models.labels import named
from minillm_lab.models.remote import read_repository
from minillm_lab.wording import number


class Chosen(NamedTuple):
    """A reference as ``quality.reference`` has it, why it is that one, and bytes to download."""

    value: Any
    why: str
    bytes: int = 0


def is_variant(given: str) -> bool:
    """Whether ``given`` can only be a variant: its name, its type or its label."""
    return "/" not in given and not given.endswith(".npz")


def spelt(given: str) -> str:
    """A reference in its one spelling, as ``discover.spelt`` does it for sources."""
    if not given.strip():
        raise LabError("--reference names nothing; name a variant or an .npz file")
    return given.lower() if is_variant(given) else discover.spelt(given)


def is_unquantized(given: str | None) -> bool:
    """Whether the reference is the source's own unquantized weights, as it is by default."""
    return given is None or given.upper() in (*UNQUANTIZED, "FP16")


def types_with(given: str | None, types: Sequence[str]) -> list[str]:
    """The types asked for, with that of the reference; none stays none."""
    if not types or given is None or not is_variant(given) or is_unquantized(given):
        return [*types]
    return [*types, *([given] if given.lower() not in {t.lower() for t in types} else [])]


def chosen(given: str, found: Found, variants: dict[str, str]) -> Chosen:
    """What ``given`` names, pinned where it is on the hub. Raises LabError if there is no such."""
    if is_variant(given):
        name = variant(given, found, variants)
        return Chosen(name, f"Quality is the distance from {name}, as --reference asked.")
    if Path(given).exists():
        return Chosen({"file": given}, on_disk(given))
    return on_hub(given)


def variant(given: str, found: Found, variants: dict[str, str]) -> str:
    """The variant of a name, or the only one of a label or type."""
    there = ", ".join(variants)
    types = {gguf.label: gguf.header.type for gguf in found.gguf}
    settings = {name: yaml.safe_load(f"{{{text}}}") for name, text in variants.items()}
    labels = {
        name: one.get("file", one.get("quantization", "fp16")) for name, one in settings.items()
    }
    meant = [name for name in variants if name == given.lower()]
    meant = meant or [name for name, label in labels.items() if named(label, given)]
    meant = meant or [n for n, label in labels.items() if types.get(label) == given.upper()]
    if len(meant) != 1:
        why = "could be any of them" if meant else "no such variant"
        raise LabError(f"--reference {given!r}: {why}; there are: {', '.join(meant) or there}")
    return meant[0]


def on_disk(given: str) -> str:
    """Why it is this file of this disk, once it was opened and can be used."""
    from minillm_lab.quality.reference import Reference

    if not given.endswith(".npz"):
        raise LabError(f"--reference {given}: no .npz file, as a reference is (docs/new.md)")
    with Reference(Path(given)):
        pass  # whether it fits the text and the tokenizer is known when they are
    return f"Quality is the distance from {given}, a reference made elsewhere."


def on_hub(given: str) -> Chosen:
    """The file of a repository at its main branch's commit, with its checksum."""
    from huggingface_hub import constants

    owner, name, path = [*given.removeprefix(f"{constants.ENDPOINT}/").split("/", 2), "", ""][:3]
    if not REPOSITORY.fullmatch(f"{owner}/{name}"):
        raise LabError(
            f"--reference {given}: no such file here, and no owner/name/file.npz of a hub"
        )
    try:
        repository = read_repository(f"{owner}/{name}")
    except LabError as error:
        raise LabError(f"--reference {given}: no such file here; {error}") from error.__cause__
    files = {one.path: one for one in repository.files if one.path.endswith(".npz")}
    if path not in files:
        missing = f"{repository.name} has no {path!r}" if path else "which of its files?"
        there = f"there are: {', '.join(files)}" if files else "it has no *.npz"
        raise LabError(f"--reference {given}: {missing}; {there}")
    if not files[path].sha256:
        raise LabError(f"--reference {given}: the hub tells no checksum of {path}")
    pinned = {
        "repository": repository.name,
        "revision": repository.commit,
        "file": path,
        "sha256": files[path].sha256,
    }
    size = number(files[path].bytes / 1e6)
    why = f"Quality is the distance from {given}, a reference made elsewhere ({size} MB)."
    return Chosen({"hub": pinned}, why, files[path].bytes)
