"""What a source offers to an experiment: a repository of the hub, files or a folder on this disk.

Only headers and small files are read. Whatever cannot be run is refused here in one line.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import NoneType

from minillm_lab.experiment.sources import BLOB, UNQUANTIZED
from minillm_lab.header import Header, parse_header
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import INDEX, SINGLE, chosen_safetensors
from minillm_lab.models.found import Found, found_in, usable
from minillm_lab.models.labels import CUT_UP, grouped, labelled, named
from minillm_lab.models.ollama import PREFIX, in_store
from minillm_lab.models.remote import (
    File,
    Repository,
    as_object,
    read_headers,
    read_json,
    read_repository,
)

GENERATING = re.compile(r"(ForCausalLM|LMHeadModel)$")  # of Transformers' architectures
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ODD = "its name holds a space, a brace or a backslash, which no path of an experiment may"
PLAIN = re.compile(r"[^\\\s{}]+")  # a path in a repository as a config may hold it


def discover(sources: list[str], types: list[str], whole: bool = True) -> Found:
    """What the sources offer; ``types`` choose among GGUF files, by label or type.

    The unquantized weights, which others are compared with, are among it if they are wanted
    (``whole``), whatever the types.
    Raises LabError where there is nothing that can be run, or no file of a type asked for.
    """
    try:
        kept = {one: in_store(one) for one in sources if one.startswith(PREFIX)}
        here = [kept[one][0] if one in kept else Path(one) for one in sources]
        if any(path.exists() for path in here):
            beside = tuple(line for _, lines in kept.values() for line in lines)
            return on_disk(here, types, whole, beside)
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror or error}") from error
    from huggingface_hub import constants

    names = [source.removeprefix(f"{constants.ENDPOINT}/") for source in sources]
    for name in names:
        if not REPOSITORY.fullmatch(name) or name.endswith(".gguf"):
            raise LabError(f"{name}: no such file or folder, and no repository's name (owner/name)")
    return on_hub(list(dict.fromkeys(names)), types, whole)


def on_hub(names: list[str], types: list[str], whole: bool) -> Found:
    """What repositories offer: one of safetensors, or GGUF files of one model in all of them."""
    said, repositories = " ".join(names), [read_repository(name) for name in names]
    splits, odd = [], tuple[str, ...]()
    for repository in repositories:
        every = [file for file in repository.files if file.path.endswith(".gguf")]
        files = [file for file in every if PLAIN.fullmatch(file.path)]
        odd += tuple(f"{f.path} ({ODD})" for f in every if f not in files)
        if every and not files:
            raise LabError(f"{repository.name}: {every[0].path}: {ODD}")
        if not files and len(names) > 1:
            raise LabError(f"{repository.name}: holds no *.gguf; name it by itself")
        if not files:
            weights, stored = hub_safetensors(repository)
            return Found([], weights, [], repository, stored)
        splits += grouped(files, repository.name)
    labels = labelled(splits)
    if types and all(any(named(label, type_) for label in labels) for type_ in types):
        wanted = (*types, *(UNQUANTIZED if whole else ()))  # no other's header is needed
        labels = {
            label: parts
            for label, parts in labels.items()
            if any(named(label, type_) for type_ in wanted)
        }
    read, left_out = dict[str, list[Header]](), odd
    for repository in repositories:
        mine = {label: p for label, p in labels.items() if p[0].repository == repository.name}
        headers = read_headers(repository, [file for parts in mine.values() for file in parts])
        read |= {label: [next(headers) for _ in parts] for label, parts in mine.items()}
        left_out += not_taken(file.path for file in repository.files)
        left_out += cut_up(file.path for file in repository.files)
    gguf, beside = usable(said, labels, read)
    found = found_in(said, gguf, types, repositories, beside + left_out, whole)
    return found if found.unquantized or not whole else with_base(found, repositories)


def with_base(found: Found, repositories: list[Repository]) -> Found:
    """The same with the unquantized safetensors of the base model, where they can be had."""
    bases = sorted({repository.base for repository in repositories if repository.base})
    if not bases:
        return replace(found, base="Its card names no base model.")
    if len(bases) > 1:
        return replace(found, base=f"The cards name different base models: {', '.join(bases)}.")
    base = bases[0]
    from huggingface_hub.errors import RepositoryNotFoundError  # a gated one is one as well

    try:
        if not REPOSITORY.fullmatch(base):
            raise LabError(f"{base!r} is no repository's name")
        repository = read_repository(base)
        weights, _ = hub_safetensors(repository)
    except LabError as error:
        if not isinstance(error.__cause__, (NoneType, RepositoryNotFoundError)):
            raise  # the connection failed: another time it may serve
        return replace(found, base=f"The base model that its card names does not serve: {error}.")
    return replace(found, safetensors=weights, safetensors_from=repository)


def on_disk(paths: list[Path], types: list[str], whole: bool, beside: tuple[str, ...]) -> Found:
    """What files and folders on this disk offer; ``beside``: what is left out already."""
    said = " ".join(map(str, paths))
    below = {path: gguf_below(path) for path in paths}
    if len(paths) > 1 and (empty := [path for path, found in below.items() if not found]):
        raise LabError(f"{empty[0]}: holds no *.gguf; name a folder of safetensors by itself")
    files = sorted({file for found in below.values() for file in found})
    if not files:
        weights, stored = local_safetensors(paths[0])
        return Found([], weights, [], paths[0], stored)
    alone = len(paths) == 1 and paths[0].is_dir()
    parents = [file.parent for file in files]
    folder = Path(os.path.normpath(paths[0].absolute()) if alone else os.path.commonpath(parents))
    listed = [
        File(str(f.relative_to(folder)), f.stat().st_size, blob[1] if blob else None)
        for f, blob in ((file, BLOB.fullmatch(file.name)) for file in files)
    ]
    labels = labelled(grouped(listed, said))
    read = {
        label: [local_header(folder / file.path) for file in parts]
        for label, parts in labels.items()
    }
    gguf, left_out = usable(said, labels, read)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    left_out += beside
    if alone:
        left_out += not_taken(path.name for path in paths[0].iterdir())
        left_out += cut_up(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return found_in(said, gguf, types, shown, left_out, whole)


def gguf_below(path: Path) -> list[Path]:
    """The GGUF files in a folder and the folders in it, or a file itself, with absolute paths.

    Raises LabError if the file is no GGUF.
    """
    if not path.exists():
        raise LabError(f"{path}: no such file or folder")
    place = Path(os.path.normpath(path.absolute()))
    if place.is_dir():
        return list(place.rglob("*.gguf"))
    local_header(path)
    if place.suffix != ".gguf" and not BLOB.fullmatch(place.name):
        raise LabError(f"{path}: its name does not end in .gguf; name a link to it that does")
    return [place]


def not_taken(names: Iterable[str]) -> tuple[str, ...]:
    """What to say of safetensors that lie beside GGUF files."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    more = f" and {len(weights) - 1} more" if weights[1:] else ""
    return tuple(f"{one}{more} (the GGUF files beside it are taken)" for one in weights[:1])


def cut_up(names: Iterable[str]) -> tuple[str, ...]:
    """What to say of files whose bytes a publisher cut up, which are no GGUF by themselves."""
    found = sorted(name for name in names if CUT_UP.search(name))
    return tuple(f"{name} (a GGUF cut up; join the pieces with cat)" for name in found)


def local_header(path: Path) -> Header:
    """The header of a file or a part. Raises LabError with what is wrong with it."""
    import mmap

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, str(path))
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LabError(f"{path}: not a GGUF file that can be used: {error}") from None


def hub_safetensors(repository: Repository) -> tuple[list[File], int]:
    """The safetensors that are a repository's model, and their bytes per weight.

    Raises LabError if it has none that can be run.
    """
    files = {file.path: file for file in repository.files if "/" not in file.path}
    weights = check_weights(files, repository.name)
    if strange := [name for name in weights if not PLAIN.fullmatch(name)]:
        raise LabError(f"{repository.name}: {strange[0]}: {ODD}")
    if "config.json" not in files:
        raise LabError(f"{repository.name}: has no config.json, which says what the model is")
    stored = check_architectures(read_json(repository, "config.json"), repository.name)
    if INDEX in files:
        index = read_json(repository, INDEX).get("weight_map")
        told = list(index.values()) if isinstance(index, dict) else []
        if not told or not all(isinstance(name, str) for name in told):
            raise LabError(f"{repository.name}: {INDEX} does not say where the weights are")
        named = sorted(set(told))
        if missing := [name for name in named if name not in files]:
            raise LabError(f"{repository.name}: {INDEX} names {missing[0]}, which is missing")
        return [files[name] for name in named], stored
    if SINGLE not in weights and len(weights) > 1:
        raise LabError(
            f"{repository.name}: it is not clear which of {len(weights)} *.safetensors files are"
            " the model"
        )
    return [files[SINGLE] if SINGLE in weights else files[weights[0]]], stored


def local_safetensors(folder: Path) -> tuple[list[File], int]:
    """The same of a folder on this disk."""
    if not folder.is_dir():
        raise LabError(f"{folder}: neither a GGUF file nor a folder")
    files = {path.name: File(path.name, path.stat().st_size) for path in folder.iterdir()}
    weights = check_weights(files, str(folder))
    if "config.json" not in files:
        raise LabError(f"{folder}: has no config.json, which says what the model is")
    stored = check_architectures(
        as_object((folder / "config.json").read_bytes(), f"{folder}/config.json"), str(folder)
    )
    return [files[name] for name in chosen_safetensors(folder, weights, str(folder))], stored


def check_weights(files: Iterable[str], name: str) -> list[str]:
    """The names that are safetensors. Raises LabError where none is, and says what is there."""
    weights = sorted(file for file in files if file.endswith(".safetensors"))
    if not weights:
        pickled = sorted(file for file in files if file.endswith(PICKLES))
        raise LabError(
            f"{name}: its weights are pickles alone ({pickled[0]}), which could run code: convert"
            " them to safetensors, or take another repository"
            if pickled
            else f"{name}: its files end in .GGUF; only .gguf is known: rename copies of them"
            if any(file.lower().endswith(".gguf") for file in files)
            else f"{name}: has no weights: neither *.gguf nor *.safetensors"
        )
    return weights


def check_architectures(config: dict[str, object], name: str) -> int:
    """The bytes per weight that a config tells, or 2.

    Raises LabError unless the model writes a text token by token, from unquantized weights.
    """
    said = config.get("architectures")
    architectures = [str(one) for one in said] if isinstance(said, list) else []
    if not any(GENERATING.search(architecture) for architecture in architectures):
        what = ", ".join(architectures) or "without architectures in its config.json"
        raise LabError(
            f"{name}: {what}: not a model that generates text from text alone (…ForCausalLM)"
        )
    if how := config.get("quantization_config"):
        method = how.get("quant_method", "some method") if isinstance(how, dict) else "some method"
        raise LabError(
            f"{name}: its weights are quantized already ({method}); name the unquantized model"
        )
    return 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
